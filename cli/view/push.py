"""A push as it would be, or as it was, in lines."""

from collections.abc import Iterator
from typing import Any

from vlsurgery.cli.shipping.offer import Offer
from vlsurgery.cli.shipping.upload import Pushed
from vlsurgery.surgery.runtime.byte_counts import in_words


def push_lines(offer: Offer, pushed: Pushed | None) -> Iterator[str]:
    """What would leave the machine (the files with their sizes, and the card), or what left it."""
    to, sizes = offer.to, offer.parcel.sizes
    place = "".join(
        [
            to.model,
            f", branch {to.revision}" if to.revision else "",
            ", as a pull request" if to.as_pull_request else "",
            ", private if it is new" if to.private else "",
        ]
    )
    yield f"{'Sent' if pushed else 'Would send'} to {place}: {len(sizes)} files, {in_words(sum(sizes.values()))}"
    width = max(map(len, sizes))
    yield from (f"  {name:<{width}}  {in_words(size)}" for name, size in sizes.items())
    if offer.merge.left_out:
        yield f"Left here, the merge did not write them: {', '.join(offer.merge.left_out)}"
    yield from offer.notes
    if pushed is None:
        yield f"Its card:\n\n{offer.card}"
        yield "Nothing was sent. Add --publish to send it."
    else:
        yield pushed.url


def push_data(offer: Offer, pushed: Pushed | None) -> dict[str, Any]:
    """The same as JSON."""
    sizes = offer.parcel.sizes
    return {
        "model": offer.to.model,
        "revision": offer.to.revision,
        "private": offer.to.private,
        "files": [{"name": name, "bytes": size, "sha256": offer.parcel.digests[name]} for name, size in sizes.items()],
        "left_out": list(offer.merge.left_out),
        "notes": offer.notes,
        "card": offer.card,
        "published": None if pushed is None else {"commit": pushed.commit, "url": pushed.url},
    }
