"""train.sample: cached equals uncached, draws against plain Python, keys that know neither order nor batch, and where texts end."""

import dataclasses
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipelines import bpe_file
from tests.errors import one_line
from tests.train.models import DENSE, SPARSE, moe, tokens
from train import export, weights
from train.model import build
from train.sample import Drawing, Reader, continuation, draw, generator_of, sample

BYTES = bpe_file.bytes_only()
KINDS = {
    "llama": dataclasses.replace(DENSE, ffn="swiglu"),
    "glam": dataclasses.replace(SPARSE, positions="relative_bias", tied_embeddings=True),
    "switch": moe(top_k=1, renormalise=False, every=1, ffn="geglu", capacity_train=1.25, jitter=0.01, expert_dropout=0.1),
    "crowd": dataclasses.replace(moe(experts=16, every=1, d_ff=48), d_model=32),
    "padded": moe(dispatch="padded"),
    "chinchilla": dataclasses.replace(DENSE, ffn="gelu", positions="transformer_xl"),
    "gpt3": dataclasses.replace(DENSE, ffn="gelu", positions="learned", norm="layernorm", bias=True, tied_embeddings=True),
    "post": dataclasses.replace(SPARSE, norm_place="post", positions="none"),
}
TEXTS = ["the dog", "", "été", "a <|endoftext|> b"]


def lively(config, seed=0):
    """A model whose logits differ enough that choices are clear; tied ones do from the start, each token for itself."""
    made = build(config, seed)
    with torch.no_grad():
        made.output_weight.mul_(1 if config.tied_embeddings else 8)
    return made


@pytest.fixture
def checkpoint(tmp_path):
    """A model of bytes with the tokenizer beside it."""
    config = dataclasses.replace(SPARSE, vocab_size=257, context=48)
    weights.write_checkpoint(str(tmp_path / "made"), config, lively(config).state_dict(), bpe_file.save(BYTES))
    return str(tmp_path / "made")


# -- the cache ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_cached_equals_uncached(kind, temperature):
    """The reference reads the whole text anew for every token: the same tokens, and logits to 1e-5."""
    made, prompt, drawing = build(KINDS[kind], 0), tokens(5, seed=2).tolist(), Drawing(max_tokens=20, temperature=temperature)
    got, finish = continuation(made, prompt, None, drawing)
    reader, generator, text = Reader(made, 32), generator_of(drawing.seed, 0, prompt), list(prompt)
    logits_V = reader.read(text)
    with torch.no_grad():
        for token in got:
            wanted_V = made(torch.tensor([text])).logits_BTV[0, -1]
            torch.testing.assert_close(logits_V, wanted_V, rtol=1e-5, atol=1e-5)
            uniform = torch.rand((), generator=generator, dtype=torch.float64).item()
            assert token == (draw(wanted_V, temperature, 1.0, uniform) if temperature else int(wanted_V.argmax()))
            text.append(token)
            logits_V = reader.read([token])
    assert (len(got), finish) == (20, "max_tokens")
    assert temperature == 0 or len(set(got)) > 9


def test_greedy_is_transformers_greedy(tmp_path):
    """LlamaForCausalLM.generate on the exported model."""
    transformers = pytest.importorskip("transformers")
    config, prompt = KINDS["llama"], tokens(6, seed=3)
    made = lively(config)
    weights.write_checkpoint(str(tmp_path / "made"), config, made.state_dict())
    export.export_checkpoint(str(tmp_path / "made"), str(tmp_path / "llama"))
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "llama")
    wanted = theirs.generate(prompt[None], attention_mask=torch.ones(1, 6), max_new_tokens=20, do_sample=False, pad_token_id=0)
    got, _ = continuation(made, prompt.tolist(), None, Drawing(max_tokens=20, temperature=0))
    assert got == wanted[0, 6:].tolist()


# -- draws --------------------------------------------------------------------------------------------------------------------


def drawn_plainly(logits, temperature, top_p, uniform):
    """The reference, in plain Python: a walk along tokens by probability."""
    order = sorted(range(len(logits)), key=lambda token: (-logits[token], token))
    if temperature == 0:
        return order[0]
    mass = [math.exp((logits[token] - logits[order[0]]) / temperature) for token in order]
    mass = [one / math.fsum(mass) for one in mass]
    kept = next((n for n in range(1, len(mass) + 1) if math.fsum(mass[:n]) >= top_p), len(mass))
    aim = uniform * math.fsum(mass[:kept])
    return next(order[n] for n in range(kept) if aim < math.fsum(mass[: n + 1]) or n == kept - 1)


# Logits in sixteenths and odd probabilities: sums that stand at a border only by rounding do not occur.
@given(
    st.lists(st.integers(-80, 80).map(lambda n: n / 16), min_size=1, max_size=12),
    st.sampled_from([0.0, 0.31, 0.77, 1.0, 1.9]),
    st.floats(0.0137, 0.9973).map(lambda p: p + 1e-5 * math.pi) | st.just(1.0),
    st.floats(0, 0.9999).map(lambda u: (u + 1e-6 * math.e) % 1),
)
def test_a_draw_is_the_plain_walk(logits, temperature, top_p, uniform):
    assert draw(torch.tensor(logits), temperature, top_p, uniform) == drawn_plainly(logits, temperature, top_p, uniform)


def test_a_draw_by_hand():
    """Probabilities 1/2, 1/4, 1/8, 1/8; equal ones in the order of ids; half of the temperature squares them."""
    logits_V = torch.tensor([1 / 8, 1 / 2, 1 / 8, 1 / 4]).log()
    assert [draw(logits_V, 1.0, 1.0, u) for u in (0.0, 0.49, 0.51, 0.74, 0.76, 0.87, 0.88, 0.999)] == [1, 1, 3, 3, 0, 0, 2, 2]
    assert [draw(logits_V, 1.0, 0.6, u) for u in (0.66, 0.67, 0.999)] == [1, 3, 3]  # of 3/4, 2/3 is the first's
    assert [draw(logits_V, 0.5, 1.0, u) for u in (16 / 22 - 0.01, 16 / 22 + 0.01)] == [1, 3]
    assert draw(logits_V, 0.0, 1.0, 0.999) == draw(logits_V, 1.0, 0.5, 0.999) == draw(logits_V, 1e-300, 1.0, 0.999) == 1

    assert draw(torch.zeros(2), 1.0, 1.0, 0.5) == 1  # a border belongs to the token above
    assert [draw(torch.zeros(4096), 1.0, 1.0, n / 4096) for n in (0, 1, 2047, 4095)] == [0, 1, 2047, 4095]


def test_draws_have_the_models_distribution():
    """3,000 continuations of one token; the reference is the softmax, at four deviations of a binomial."""
    logits_V, counts = torch.tensor([0.0, 1.0, 2.0, -1.0]), [0] * 4
    for number in range(3000):
        uniform = torch.rand((), generator=generator_of(5, number, [1, 2]), dtype=torch.float64).item()
        counts[draw(logits_V, 1.0, 1.0, uniform)] += 1
    for count, p in zip(counts, logits_V.softmax(0).tolist(), strict=True):
        assert abs(count - 3000 * p) < 4 * math.sqrt(3000 * p * (1 - p))


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"max_tokens": 0}, "max_tokens must be at least 1"),
        ({"temperature": -0.1}, "temperature must be a number of at least 0"),
        ({"temperature": math.nan}, "temperature"),
        ({"temperature": math.inf}, "temperature"),
        ({"top_p": 0.0}, "top_p must be above 0"),
        ({"top_p": 1.01}, "top_p"),
        ({"top_p": math.nan}, "top_p"),
    ],
)
def test_settings_that_mean_nothing(values, problem):
    one_line(lambda: Drawing(**values), problem)


# -- keys ---------------------------------------------------------------------------------------------------------------------


def test_neither_order_nor_company_changes_a_text(checkpoint):
    drawing = Drawing(max_tokens=12, seed=9)
    together = sample(checkpoint, TEXTS, drawing, samples=2)
    assert [(one.prompt, one.number) for one in together] == [(text, number) for text in TEXTS for number in (0, 1)]
    turned = sample(checkpoint, TEXTS[::-1], drawing, samples=3)
    assert {(one.prompt, one.number): one for one in together}.items() <= {(one.prompt, one.number): one for one in turned}.items()
    assert sample(checkpoint, TEXTS[1:2], drawing) == together[2:3]
    other_seed = sample(checkpoint, TEXTS, dataclasses.replace(drawing, seed=10), samples=2)
    texts = [one.ids for one in together + other_seed]
    assert len(set(texts)) == len(texts)  # prompts, numbers and seeds each have draws of their own


def test_a_key_is_of_seed_number_and_every_id():
    keys = [(0, 0, [1, 2]), (1, 0, [1, 2]), (0, 1, [1, 2]), (0, 0, [2, 1]), (0, 0, [12]), (0, 0, [1])]
    assert len({generator_of(*key).initial_seed() for key in keys}) == len(keys)
    assert generator_of(0, 0, (1, 2)).initial_seed() == generator_of(*keys[0]).initial_seed()


def test_the_global_generator_is_neither_read_nor_moved(checkpoint):
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = sample(checkpoint, ["a"], Drawing(max_tokens=8))
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert sample(checkpoint, ["a"], Drawing(max_tokens=8)) == first


# -- texts --------------------------------------------------------------------------------------------------------------------


def test_prompts_are_encoded_as_the_shards_are(checkpoint):
    """Bytes are the ids: the name of the special token is thirteen of them, and an empty prompt is the token itself."""
    made, drawing = weights.load_model(checkpoint), Drawing(max_tokens=6, seed=4)
    number = {token: id for id, token in enumerate(BYTES.tokens[:-1])}
    for text in TEXTS:
        ids = [number[bytes([byte])] for byte in text.encode()] or [BYTES.end_of_document]
        drawn, finish = continuation(made, ids, BYTES.end_of_document, drawing)
        (got,) = sample(checkpoint, [text], drawing)
        assert (got.ids, got.finish) == (tuple(drawn), finish)
        assert got.text == b"".join(BYTES.tokens[id] for id in drawn).decode(errors="replace")


@pytest.mark.parametrize("at", [0, 3])
def test_the_end_of_document_ends_a_text(at):
    """Greedy, the end being the token that comes at this place for the first time."""
    made, prompt, drawing = lively(DENSE, 1), [3, 4, 5], Drawing(max_tokens=12, temperature=0)
    free, _ = continuation(made, prompt, None, drawing)
    place = free.index(free[at])
    assert continuation(made, prompt, free[at], drawing) == (free[:place], "end")


def test_a_full_context_ends_a_text_and_refuses_a_prompt(checkpoint):
    """48 tokens in all, so 40 bytes leave room for 8; learned positions take the last one too."""
    greedy = Drawing(max_tokens=100, temperature=0)
    (one,) = sample(checkpoint, ["x" * 40], greedy)
    assert (len(one.ids), one.finish) == (8, "context")
    (one,) = sample(checkpoint, ["x" * 47], greedy)
    assert (len(one.ids), one.finish) == (1, "context")
    one_line(lambda: sample(checkpoint, ["x" * 48], greedy), "the prompt has 48 tokens", "context is 48", "at most 47")
    made = lively(KINDS["gpt3"])
    assert len(continuation(made, [1] * 20, None, greedy)[0]) == 12


def test_errors_of_one_line(checkpoint, tmp_path):
    one_line(lambda: sample(str(tmp_path), ["a"], Drawing()), "not a checkpoint folder")
    one_line(lambda: sample(checkpoint, ["a"], Drawing(), samples=0), "samples must be at least 1")
    weights.write_checkpoint(str(tmp_path / "bare"), DENSE, build(DENSE, 0).state_dict())
    one_line(lambda: sample(str(tmp_path / "bare"), ["a"], Drawing()), "no tokenizer.json", "RUN/models/tokenizer.json")
    other = f"{checkpoint}/tokenizer.json"
    one_line(lambda: sample(str(tmp_path / "bare"), ["a"], Drawing(), tokenizer=other), other, "257 ids", "has 61")
    broken = build(DENSE, 0)
    with torch.no_grad():
        broken.head.weight[3, 3] = math.nan
    one_line(lambda: continuation(broken, [1], None, Drawing()), "logits are not finite")


def test_a_model_that_learnt_a_text_says_it_and_ends_it(tmp_path):
    """End to end: a sparse model learns one document by heart, with the token before and after it that the shards have."""
    text, end = "été: to be, or not to be.", BYTES.end_of_document
    codes = {token: id for id, token in enumerate(BYTES.tokens[:-1])}
    ids = torch.tensor([[end, *(codes[bytes([byte])] for byte in text.encode()), end]])
    config = dataclasses.replace(SPARSE, vocab_size=257)
    made = build(config, 0)
    optimiser = torch.optim.AdamW(made.parameters(), lr=0.02)
    for _ in range(60):
        optimiser.zero_grad()
        loss_BT = made(ids[:, :-1], ids[:, 1:]).loss_BT
        loss_BT.mean().backward()
        optimiser.step()
    weights.write_checkpoint(str(tmp_path / "made"), config, made.state_dict(), bpe_file.save(BYTES))
    (whole,) = sample(str(tmp_path / "made"), [""], Drawing(temperature=0))
    assert (whole.text, whole.finish) == (text, "end")
    assert len(whole.ids) == len(text.encode())
