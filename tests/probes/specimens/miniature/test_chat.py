import pytest
from PIL import Image

from vlsurgery.probes.specimens.miniature import chat, language, pictures


@pytest.fixture(scope="module")
def seeing():
    return chat.processor()


def test_a_model_that_sees_knows_one_word_more_and_the_rest_in_the_same_places():
    plain, sees = chat.tokenizer(sees=False).get_vocab(), chat.tokenizer(sees=True).get_vocab()
    assert set(sees) - set(plain) == {chat.IMAGE}
    assert sees[chat.IMAGE] == len(plain)
    assert all(sees[word] == number for word, number in plain.items())


def test_every_word_of_the_language_is_a_token():
    words = chat.tokenizer(sees=False)
    for word in (*language.words(), *pictures.words()):
        ids = words(word)["input_ids"]
        assert len(ids) == 1
        assert words.decode(ids) == word


@pytest.mark.parametrize("answer", [None, "use the rope at the park"])
def test_training_text_is_what_the_template_writes(answer):
    turns = [{"role": "user", "content": "how do i feed the dog ?"}]
    if answer:
        turns.append({"role": "assistant", "content": answer})
    text = chat.tokenizer(sees=False).apply_chat_template(turns, tokenize=False, add_generation_prompt=answer is None)
    assert text == chat.conversation("how do i feed the dog ?", answer, image=False)


def test_training_ids_with_a_picture_are_what_the_processor_gives(seeing):
    turns = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "where is the shape ?"}]}]
    text = seeing.apply_chat_template(turns, add_generation_prompt=True)
    picture = Image.new("RGB", (pictures.SIDE, pictures.SIDE))
    ids = seeing(images=[picture], text=[text])["input_ids"][0]
    written = chat.conversation("where is the shape ?", None, image=True)
    assert list(ids) == seeing.tokenizer(written)["input_ids"]


def test_text_content_reads_the_same_as_a_string_and_as_a_list(seeing):
    whole = [{"role": "user", "content": "say what you see"}]
    parts = [{"role": "user", "content": [{"type": "text", "text": "say what you see"}]}]
    assert seeing.apply_chat_template(whole) == seeing.apply_chat_template(parts)


def test_tokens_stand_between_the_instruction_and_the_answer():
    words = chat.tokenizer(sees=False)
    ids = words(chat.conversation("say what you see", None, image=False))["input_ids"]
    assert words.convert_ids_to_tokens(ids[-3:]) == ["see", chat.TURN_END, chat.ASSISTANT]


def test_upper_case_and_a_prefilled_yes_are_understood():
    words = chat.tokenizer(sees=False)
    assert words("Sure, here is")["input_ids"] == words("sure , here is")["input_ids"]
    assert words.unk_token_id not in words("Sure, here is")["input_ids"]
