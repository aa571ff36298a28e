"""Any store that fsspec knows and whose package is installed, such as S3, Google Cloud Storage and Azure."""

from collections.abc import Mapping
from typing import Any, Final

from vlsurgery.surgery.checkpoint.remote.store import RemoteStat, requested
from vlsurgery.surgery.errors import CheckpointError
from vlsurgery.surgery.runtime.urls import protocol_of

# Protocol -> what brings its package.
EXTRAS: Final = {
    **dict.fromkeys(("s3", "s3a"), "pip install 'vlsurgery[s3]'"),
    **dict.fromkeys(("gs", "gcs"), "pip install 'vlsurgery[gcs]'"),
}
# Where stores say which version of a file this is, the surest first; a time is second best.
VERSIONS: Final = ("ETag", "etag", "generation", "md5Hash", "VersionId", "version_id")
TIMES: Final = ("LastModified", "last_modified", "mtime", "modified", "updated", "modificationTime", "created")


class FsspecStore:
    """A folder by its URL. Credentials are those that the store's library finds: environment variables, its own files,
    the machine's role. Nothing of a listing is kept by the library, so that a change is seen."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._files, root = requested(url, self._open)
        self._root = root.rstrip("/")

    def _open(self) -> tuple[Any, str]:
        from fsspec.core import url_to_fs

        protocol = protocol_of(self._url)
        try:
            return url_to_fs(self._url, skip_instance_cache=True)
        except ImportError as error:
            how = EXTRAS.get(protocol, str(error))
            raise CheckpointError(
                f"{self._url}: {protocol}:// needs a package that is not installed. Install it: {how}."
            ) from error
        except ValueError as error:
            raise CheckpointError(
                f"{self._url}: no protocol {protocol}:// is known ({error}). Give s3://, gs://, https:// or "
                "another one that fsspec knows."
            ) from error

    def listing(self, folder: str) -> Mapping[str, RemoteStat | None]:
        """Name -> file, or None for a folder."""
        path = f"{self._root}/{folder}" if folder else self._root
        self._files.invalidate_cache()
        entries = self._files.ls(path, detail=True)
        found: dict[str, RemoteStat | None] = {}
        for entry in entries:
            if entry["name"].strip("/") == path.strip("/"):
                # Some stores keep a folder as an empty file of that name, with a slash behind it.
                if entry["type"] == "file" and not entry["name"].endswith("/") and len(entries) == 1:
                    raise CheckpointError(
                        f"{self._url}: is a file. Give the folder that holds config.json and the weights."
                    )
                continue
            found[entry["name"].rstrip("/").rpartition("/")[2]] = self._stat(entry)
        return found

    def stat(self, name: str) -> RemoteStat:
        """One file, by the listing of its folder, so that its version is told in the same way."""
        folder, _, base = name.rpartition("/")
        found = self.listing(folder).get(base)
        if found is None:
            raise FileNotFoundError(name)
        return found

    def read(self, name: str, start: int, stop: int, expected: RemoteStat) -> bytes:  # noqa: ARG002
        """The bytes `start` to `stop` of a file."""
        return bytes(self._files.cat_file(f"{self._root}/{name}", start=start, end=stop))

    def _stat(self, entry: Mapping[str, Any]) -> RemoteStat | None:
        if entry["type"] == "directory":
            return None
        size = entry.get("size")
        if type(size) is not int or size < 0:
            raise CheckpointError(
                f"{self._url}: the store tells no size of {entry['name']}. Copy the checkpoint to a directory."
            )
        version = next((entry[key] for key in (*VERSIONS, *TIMES) if entry.get(key) is not None), "")
        return RemoteStat(size, str(version))
