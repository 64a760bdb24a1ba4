"""train.lm_eval: EleutherAI's lm-eval on tasks of a folder, held to train.tasks, one token at a time and its windows."""

import json
import math
import subprocess
import sys

import numpy as np
import pytest
import torch
import yaml

from tests.train.models import DENSE
from tests.train.small_runs import invoke
from tests.train.test_evaluate import BYTES, bigram, lively, one_line, write_lines
from tests.train.test_sample import BYTES as BYTE_CODES
from tests.train.test_tasks import QUERIES, plainly, preferring
from train import tasks, weights
from train.model import build
from train.sample import Drawing, continuation

pytest.importorskip("lm_eval")
from lm_eval import simple_evaluate
from lm_eval.api.instance import Instance
from lm_eval.tasks import TaskManager
from lm_eval.utils import get_rolling_token_windows

from pipelines import bpe_file
from train import lm_eval

ROOM = 160


@pytest.fixture
def folder(tmp_path):
    """Tasks: multiple choice as train.tasks asks it, the bits of whole texts, and an answer that is written."""
    data = write_lines(tmp_path / "copa.jsonl", *QUERIES)
    common = {"dataset_path": "json", "dataset_kwargs": {"data_files": {"test": data}, "cache_dir": str(tmp_path / "cache")}}
    mean = {"aggregation": "mean", "higher_is_better": True}
    written = {
        "choose": {
            "output_type": "multiple_choice",
            "doc_to_text": "{{query}}",
            "doc_to_choice": "{{choices}}",
            "doc_to_target": "gold",
            "fewshot_split": "test",
            "fewshot_config": {"sampler": "first_n"},
            "metric_list": [{"metric": "acc", **mean}, {"metric": "acc_bytes", **mean}],
        },
        "read": {
            "output_type": "loglikelihood_rolling",
            "doc_to_text": "",
            "doc_to_target": "{{query}}",
            "metric_list": [{"metric": "bits_per_byte", "aggregation": "bits_per_byte", "higher_is_better": False}],
        },
        "write": {
            "output_type": "generate_until",
            "doc_to_text": "{{query}}",
            "doc_to_target": "{{choices[0]}}",
            "generation_kwargs": {"until": ["e"], "max_gen_toks": 9, "do_sample": False},
            "metric_list": [{"metric": "exact_match", **mean}],
        },
    }
    (tmp_path / "tasks").mkdir()
    for name, settings in written.items():
        (tmp_path / "tasks" / f"{name}.yaml").write_text(yaml.safe_dump({"task": name, "test_split": "test", **common, **settings}))
    return tmp_path


def checkpoint(folder, model):
    path = str(folder / "model")
    weights.write_checkpoint(path, model.config, model.state_dict(), bpe_file.save(BYTE_CODES))
    return path


def ask(model, kind, *arguments):
    requests = [Instance(request_type=kind, doc={}, arguments=one, idx=0) for one in arguments]
    return getattr(lm_eval.Winnow(model, BYTES), kind)(requests)


# -- requests -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["llama", "glam", "switch"])
def test_likelihoods_are_those_of_token_by_token(kind):
    """Spaces at the context's end belong to what follows; nothing before or after is nothing."""
    model = lively(kind, ROOM)
    pairs = [("the dog saw", " a cat"), ("", "été"), ("the dog saw \n", "a cat"), ("  ", "x"), ("long " * 20, " end")]
    found = ask(model, "loglikelihood", *pairs)
    for (context, following), (nats, _) in zip(pairs, found, strict=True):
        kept = context.rstrip()
        assert nats == pytest.approx(-plainly(model, kept, context[len(kept) :] + following) * math.log(2), rel=1e-5)
    assert ask(model, "loglikelihood", ("a", "")) == [(0.0, True)]
    assert [one for pair in pairs for one in ask(model, "loglikelihood", pair)] == [
        (pytest.approx(nats, rel=1e-5), greedy) for nats, greedy in found
    ]


def test_greedy_is_told():
    found = ask(preferring("a"), "loglikelihood", ("q", "aaa"), ("q", "aab"))
    assert found == [(pytest.approx(3 * math.log(0.75), rel=1e-4), True), (pytest.approx(found[1][0]), False)]


@pytest.mark.parametrize("length", [1, 31, 32, 33, 64, 100])
def test_rolling_windows_are_lm_evals(length):
    """The reference scores the windows that lm-eval's own function cuts, each by a call of its own."""
    model, text = lively("llama", 32), "".join(chr(97 + n * n % 26) for n in range(length))
    wanted = 0.0
    for read, scored in get_rolling_token_windows(BYTES(text).tolist(), prefix_token=256, max_seq_len=32, context_len=1):
        with torch.no_grad():
            loss_BT = model(torch.tensor([read[-32:]]), torch.tensor([[0] * (len(read) - len(scored)) + scored])).loss_BT
        wanted -= float(loss_BT[0, -len(scored) :].double().sum())
    (found,) = ask(model, "loglikelihood_rolling", (text,))
    assert found == pytest.approx(wanted, rel=1e-5)


def test_texts_end_at_the_first_stop():
    """The reference is train.sample's whole continuation, cut in plain Python."""
    model = lively("glam", 64)
    prompt = "the dog"
    ids = [256, *BYTES(prompt).tolist()]
    whole = bytes_of(continuation(model, ids, 256, Drawing(max_tokens=30, temperature=0))[0])
    middle, late = whole[9:11], whole[20]
    for until in ([], ["\0 never"], [middle], [late, middle], middle, ["", late]):
        stops = [one for one in ([until] if isinstance(until, str) else until) if one]
        wanted = min((whole.split(stop)[0] for stop in stops), key=len, default=whole)
        assert ask(model, "generate_until", (prompt, {"until": until, "max_gen_toks": 30})) == [wanted]


def test_of_stops_that_end_together_the_longer_counts():
    """After any letter comes the next one, so that bcd and cd are both there with the d."""
    model = bigram(following())
    asked = [("a", {"until": until, "max_gen_toks": 9}) for until in (["cd", "bcd"], ["cd"])]
    assert ask(model, "generate_until", *asked) == ["", "b"]


def following():
    """[257, 257]: the probabilities of a model for which the letter after a letter is the next one of the alphabet."""
    probability_VV = np.full((257, 257), 1e-9)
    for one, next_one in zip("abcdefgh", "bcdefgha", strict=True):
        probability_VV[BYTES(one)[0], BYTES(next_one)[0]] = 1
    return probability_VV / probability_VV.sum(1, keepdims=True)


def bytes_of(ids):
    return b"".join(BYTE_CODES.tokens[id] for id in ids).decode(errors="replace")


def test_draws_are_keyed_by_prompt_and_repetition():
    model = lively("llama", 64)
    options = {"max_gen_toks": 12, "do_sample": True, "temperature": 0.9, "top_p": 0.8}
    drawing = Drawing(max_tokens=12, temperature=0.9, top_p=0.8)
    found = ask(model, "generate_until", ("a", options), ("b", options), ("a", options))
    asked = [("a", 0), ("b", 0), ("a", 1)]
    wanted = [continuation(model, [256, *BYTES(one).tolist()], 256, drawing, number)[0] for one, number in asked]
    assert found == [bytes_of(ids) for ids in wanted]
    assert len(set(found)) == 3


@pytest.mark.parametrize(("most", "left"), [(20, "xxxxthe dog"), (30, "g")])
def test_a_long_prompt_loses_its_beginning_behind_the_end_of_document(most, left):
    """Reference: train.sample's continuation of what is left."""
    model = lively("llama", 32)
    (found,) = ask(model, "generate_until", ("x" * 50 + "the dog", {"max_gen_toks": most}))
    wanted, _ = continuation(model, [256, *BYTES(left).tolist()], 256, Drawing(max_tokens=most, temperature=0))
    assert found == bytes_of(wanted)


@pytest.mark.parametrize("options", [{"max_gen_toks": 31}, {"max_gen_toks": 99}, {}])
def test_a_task_that_leaves_no_room_for_its_question_is_refused(options):
    """Of a context of 32 tokens; lm-eval's default is 256."""
    one_line(
        lambda: ask(lively("llama", 32), "generate_until", ("the dog", options)),
        f"max_gen_toks {options.get('max_gen_toks', 256)} leaves no room for a prompt in the model's context of 32",
        "at most 30",
    )


# -- whole tasks --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shots", [0, 1])
def test_lm_eval_agrees_with_our_own_scorer(folder, shots):
    """Likelihoods of every choice to 1e-5, and accuracies; with an example, the same question asked by hand."""
    model = lively("glam", ROOM)
    told, scores = tasks.run_task(model, BYTES, str(folder), "copa")
    with lm_eval._offline():
        found = simple_evaluate(
            model=lm_eval.Winnow(model, BYTES),
            tasks=["choose"],
            num_fewshot=shots,
            task_manager=TaskManager(include_path=str(folder / "tasks"), include_defaults=False),
            bootstrap_iters=0,
        )
    samples = sorted(found["samples"]["choose"], key=lambda sample: sample["doc_id"])
    for sample, record, score in zip(samples, QUERIES, scores, strict=True):
        bits = [-nats / math.log(2) for ((nats, _),) in sample["resps"]]
        if not shots:
            assert bits == pytest.approx(score.bits, rel=1e-5)
        before = sample["arguments"]["gen_args_0"]["arg_0"] if isinstance(sample["arguments"], dict) else sample["arguments"][0][0]
        assert before.endswith(record["query"])
        assert ("\n\n" in before) == bool(shots)
        assert bits == pytest.approx([plainly(model, before, " " + one) for one in record["choices"]], rel=1e-5)
    if not shots:
        assert found["results"]["choose"]["acc,none"] == told[0].acc
        assert found["results"]["choose"]["acc_bytes,none"] == told[0].acc_norm


def test_a_checkpoint_on_all_kinds_of_task(folder, recwarn):
    """Figures of `run` on a checkpoint against evaluate's windows, our scorer and sample; nothing global is seeded."""
    model = lively("llama", ROOM)
    path = checkpoint(folder, model)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    found = lm_eval.run(path, ["choose", "read", "write"], str(folder / "tasks"))
    assert torch.equal(torch.get_rng_state(), state)
    told, _ = tasks.run_task(model, BYTES, str(folder), "copa")
    assert (found["choose"]["acc,none"], found["choose"]["items"], found["choose"]["n_shot"]) == (told[0].acc, 3, 0)
    texts = [record["query"] for record in QUERIES]
    bits = sum(plainly(model, "", text) for text in texts)
    assert found["read"]["bits_per_byte,none"] == pytest.approx(bits / sum(len(text.encode()) for text in texts), rel=1e-5)
    assert found["write"]["exact_match,none"] == 0.0
    assert not recwarn.list
    assert json.loads(json.dumps(found)) == found


def test_a_planted_model_writes_the_answer(folder):
    """It begins with x and goes on with yz and e, whatever came before: the answer of the second of three questions."""
    write_lines(folder / "copa.jsonl", *({"query": "q", "choices": [one, "-"], "gold": 0} for one in ("zy", "xyz", "x")))
    probability_VV = np.full((257, 257), 1e-9)
    probability_VV[:, BYTES("x")[0]] = 1
    for letter, following in zip("xyz", "yze", strict=True):
        probability_VV[BYTES(letter)[0]] = 1e-9
        probability_VV[BYTES(letter)[0], BYTES(following)[0]] = 1
    model = bigram(probability_VV / probability_VV.sum(1, keepdims=True))
    found = lm_eval.run(checkpoint(folder, model), ["write"], str(folder / "tasks"))
    assert found["write"]["exact_match,none"] == pytest.approx(1 / 3)


# -- the command and faults ---------------------------------------------------------------------------------------------------


def test_the_command(folder, monkeypatch, capsys):
    path = checkpoint(folder, lively("llama", ROOM))
    words = ["train", "lm-eval", path, "--task", "choose", "--include", str(folder / "tasks"), "--shots", "1"]
    assert invoke(monkeypatch, *words, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found == lm_eval.run(path, ["choose"], str(folder / "tasks"), 1)
    assert found["choose"]["n_shot"] == 1
    assert invoke(monkeypatch, *words) == 0
    assert f"choose: acc {found['choose']['acc,none']:.4f}" in capsys.readouterr().out
    assert invoke(monkeypatch, *words[:4], "other", *words[5:]) == 2
    assert "no task other" in capsys.readouterr().err


def test_errors_of_one_line(folder):
    model = lively("llama")
    one_line(lambda: lm_eval.run("x", ["nothing"], str(folder / "tasks")), "no task nothing", "choose, read, write")
    one_line(lambda: lm_eval.run("x", ["nothing"], str(folder)), "no task nothing", str(folder))
    one_line(lambda: lm_eval.run("x", ["choose"], str(folder / "none")), "none: no such folder")
    path = checkpoint(folder, lively("llama", ROOM))
    settings = yaml.safe_load((folder / "tasks" / "choose.yaml").read_text())
    for name, changes in {
        "hub": {"dataset_path": "someone/a-set", "dataset_kwargs": {}},
        "lost": {"dataset_kwargs": {"data_files": "/no"}},
    }.items():
        (folder / "tasks" / f"{name}.yaml").write_text(yaml.safe_dump({**settings, "task": name, **changes}))
        one_line(
            lambda name=name: lm_eval.run(path, [name], str(folder / "tasks")),
            f"data of {name} cannot be read",
            "nothing is fetched",
        )
    one_line(lambda: ask(model, "generate_until", ("a", {"num_beams": 4})), "num_beams is not known")
    one_line(lambda: lm_eval.Winnow(build(DENSE, 0), BYTES), "257 ids, but the model has 61")
    one_line(lambda: ask(model, "generate_until", ("a", {"max_gen_toks": 0})), "max_tokens must be at least 1")


def test_without_the_extra_it_says_which():
    code = (
        "import sys; sys.modules['lm_eval'] = None\n"
        "from pipelines.errors import UserError\n"
        "try:\n    import train.lm_eval\nexcept UserError as error:\n    print(error)"
    )
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert made.stdout == "lm-eval is not installed (no lm_eval.api): pip install 'winnow[lm-eval]'\n"
