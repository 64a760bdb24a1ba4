"""train.model: transformers' LLaMA and GPT-2, causality to the bit, caches, checkpointing, initial values, compilation."""

import dataclasses

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from pipelines.errors import UserError
from tests.train.models import DENSE, SPARSE, moe, relative, tokens
from train import losses, memory
from train import model as model_module
from train.config import ModelConfig
from train.flops import weights
from train.model import Decoder, KVCache, build
from train.moe import RoutingOptions
from train.noise import noise_keys

KINDS = {
    "llama": dataclasses.replace(DENSE, ffn="swiglu"),
    "glam": dataclasses.replace(SPARSE, positions="relative_bias", tied_embeddings=True),
    "switch": dataclasses.replace(moe(top_k=1, renormalise=False, every=1, ffn="geglu"), init_scale=0.1),
    "chinchilla": dataclasses.replace(DENSE, ffn="gelu", positions="transformer_xl"),
    "gpt3": dataclasses.replace(DENSE, ffn="gelu", positions="learned", norm="layernorm", bias=True, tied_embeddings=True),
    "padded": moe(dispatch="padded"),
    "crowd": dataclasses.replace(moe(experts=16, every=1, d_ff=48), d_model=32),  # most experts get one to three tokens
    "post": dataclasses.replace(SPARSE, norm_place="post", positions="none"),
}


def awake(config: ModelConfig, seed: int = 0) -> Decoder:
    """A model whose biases and small tables are not zero, so that a test can see them."""
    made = build(config, seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(0, 0.3, generator=generator)
    return made


def test_the_llama_block_is_transformers_llama():
    """LlamaForCausalLM with our weights: losses to 1e-5, and the gradient of the embedding."""
    llama = pytest.importorskip("transformers.models.llama.modeling_llama")
    config = KINDS["llama"]
    theirs = llama.LlamaForCausalLM(
        llama.LlamaConfig(
            vocab_size=61, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, rms_norm_eps=1e-6,
            max_position_embeddings=32, tie_word_embeddings=False, attn_implementation="eager",
        )
    )  # fmt: skip
    ours = awake(config)
    state = {"model.embed_tokens.weight": ours.embedding.weight, "lm_head.weight": ours.head.weight}
    state["model.norm.weight"] = ours.final_norm.weight
    for number, block in enumerate(ours.blocks):
        at = f"model.layers.{number}"
        parts = dict(zip("qkv", block.attention.qkv.weight.chunk(3), strict=True))
        gate, up = block.ffn.w_in.weight.chunk(2)
        state |= {f"{at}.self_attn.{name}_proj.weight": part for name, part in parts.items()}
        state |= {f"{at}.self_attn.o_proj.weight": block.attention.out.weight, f"{at}.mlp.gate_proj.weight": gate}
        state |= {f"{at}.mlp.up_proj.weight": up, f"{at}.mlp.down_proj.weight": block.ffn.w_out.weight}
        state |= {f"{at}.input_layernorm.weight": block.attention_norm.weight}
        state |= {f"{at}.post_attention_layernorm.weight": block.ffn_norm.weight}
    theirs.load_state_dict(state)
    inputs, targets = tokens(2, 20), tokens(2, 20, seed=1)
    logits = theirs(inputs).logits
    wanted = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none").view(2, 20)
    got = ours(inputs, targets).loss_BT
    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours(inputs).logits_BTV, logits, rtol=1e-5, atol=1e-5)
    wanted.sum().backward()
    got.sum().backward()
    assert relative(ours.embedding.weight.grad, theirs.model.embed_tokens.weight.grad) < 1e-5


def test_the_gpt3_block_is_transformers_gpt2():
    """GPT2LMHeadModel with our weights: LayerNorm, biases, learned positions, GELU, tied output."""
    gpt2 = pytest.importorskip("transformers.models.gpt2.modeling_gpt2")
    config = dataclasses.replace(KINDS["gpt3"], norm_eps=1e-5)
    theirs = gpt2.GPT2LMHeadModel(
        gpt2.GPT2Config(vocab_size=61, n_positions=32, n_embd=16, n_layer=2, n_head=2, n_inner=24, attn_implementation="eager")
    ).eval()
    ours = awake(config)
    state = theirs.state_dict()
    state |= {"transformer.wte.weight": ours.embedding.weight, "lm_head.weight": ours.embedding.weight}
    state |= {"transformer.wpe.weight": ours.positions.weight}
    state |= {"transformer.ln_f.weight": ours.final_norm.weight, "transformer.ln_f.bias": ours.final_norm.bias}
    for number, block in enumerate(ours.blocks):
        for theirs_name, part in {
            "ln_1": block.attention_norm, "ln_2": block.ffn_norm, "attn.c_attn": block.attention.qkv,
            "attn.c_proj": block.attention.out, "mlp.c_fc": block.ffn.w_in, "mlp.c_proj": block.ffn.w_out,
        }.items():  # fmt: skip
            at = f"transformer.h.{number}.{theirs_name}"
            state |= {f"{at}.weight": part.weight.T if ".c_" in theirs_name else part.weight, f"{at}.bias": part.bias}
    theirs.load_state_dict(state)
    inputs = tokens(2, 20)
    torch.testing.assert_close(ours(inputs).logits_BTV, theirs(inputs).logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_a_later_token_changes_no_bit_of_earlier_losses(kind, bf16):
    """Mode dropless, also where experts' groups of rows change size; with the changed token's loss as the control."""
    made, inputs, targets = awake(KINDS[kind]), tokens(2, 24), tokens(2, 24, seed=1)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        before = made(inputs, targets).loss_BT
        for at in (1, 9, 23):
            changed = inputs.clone()
            changed[0, at] = (changed[0, at] + 1) % 61
            after = made(changed, targets).loss_BT
            assert torch.equal(after[0, :at], before[0, :at])
            assert after[0, at] != before[0, at]
            assert torch.equal(after[1], before[1])


@pytest.mark.parametrize("kind", KINDS)
def test_a_documents_losses_depend_on_neither_batch_nor_neighbours(kind):
    """The reference is the document alone in a call of its own; packed behind others it needs masked documents."""
    made, inputs, targets = awake(KINDS[kind]), tokens(3, 24), tokens(3, 24, seed=1)
    with torch.no_grad():
        batch = made(inputs, targets).loss_BT
        torch.testing.assert_close(made(inputs[1:2], targets[1:2]).loss_BT, batch[1:2], rtol=1e-5, atol=1e-5)
        starts = torch.zeros(3, 24, dtype=torch.bool)
        starts[:, 0] = starts[1, 7] = starts[1, 15] = True
        packed = made(inputs, targets, starts_BT=starts).loss_BT
        alone = made(inputs[1:2, 7:15], targets[1:2, 7:15]).loss_BT
    torch.testing.assert_close(packed[1:2, 7:15], alone, rtol=1e-5, atol=1e-5)
    assert relative(batch[1:2, 7:15], alone) > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_cached_equals_uncached(kind):
    """All tokens at once are the reference for a prefix, a few, and then one at a time."""
    made, inputs = awake(KINDS[kind]), tokens(2, 20)
    cache, parts = KVCache(made.config, 2, 20), []
    with torch.no_grad():
        for piece in inputs.split([7, 4, 1, 1, 1, 6], dim=1):
            parts.append(made(piece, cache=cache).logits_BTV)
        torch.testing.assert_close(torch.cat(parts, 1), made(inputs).logits_BTV, rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match=r"20 \+ 1 tokens need a cache of that room"):
        made(inputs[:, :1], cache=cache)


def step(made, **routing):
    """(losses, all gradients) of one training step."""
    inputs, targets = tokens(2, 16), tokens(2, 16, seed=1)
    keys = noise_keys(0, 0, torch.arange(2))
    out = made(inputs, targets, routing=RoutingOptions("train", keys, **routing))
    losses.training_loss(out, made.config, 32, 2).backward()
    gradient = torch.cat([parameter.grad.flatten() for parameter in made.parameters()])
    made.zero_grad()
    return out.loss_BT.detach(), gradient


NOISY = moe(capacity_train=1.25, jitter=0.1, expert_dropout=0.2, z_coefficient=1e-2)


@pytest.mark.parametrize("checkpointing", ["full", "selective"])
@pytest.mark.parametrize("config", [NOISY, KINDS["llama"], KINDS["glam"]])
def test_checkpointing_changes_no_bit(config, checkpointing):
    """The reference keeps everything."""
    for got, wanted in zip(step(build(config, 0, checkpointing)), step(build(config, 0)), strict=True):
        assert torch.equal(got, wanted)


class Kept(TorchDispatchMode):
    """Adds up the outputs of the operators that the selective form says it keeps."""

    total = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if func in model_module._SAVED:
            self.total += sum(t.nbytes for t in (out if isinstance(out, tuple) else (out,)))
        return out


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("kind", ["llama", "gpt3", "glam", "chinchilla", "switch"])
def test_activation_bytes_are_what_torch_saves(kind, bf16):
    """Storages that autograd keeps of one sequence, by layer; and the outputs that the selective form keeps. Within 6 %."""
    compute = 2 if bf16 else 4
    wide = {"d_model": 64, "n_heads": 4, "d_head": 16, "d_ff": 160, "context": 64}

    def measured(layers):
        config = dataclasses.replace(KINDS[kind], n_layers=layers, **wide)
        made, kept = build(config, 0), {}
        own = {parameter.untyped_storage().data_ptr() for parameter in made.parameters()}

        def pack(tensor):
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in own:
                kept[storage.data_ptr()] = storage.nbytes(), tensor  # the tensor too, lest its address be given away again
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            made(tokens(1, 64), tokens(1, 64))
        with Kept() as linear, torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            made.hidden(tokens(1, 64))
        casts = compute * sum(w.size for w in weights(config) if w.kind in ("matrix", "expert")) if bf16 else 0
        return sum(size for size, _ in kept.values()) - casts, linear.total

    def counted(layers, checkpointing):
        config = dataclasses.replace(KINDS[kind], n_layers=layers, **wide)
        return memory.activation_bytes(config, 64, checkpointing, compute)

    (whole_4, linear_4), (whole_2, linear_2) = measured(4), measured(2)
    assert abs((counted(4, "none") - counted(2, "none")) / (whole_4 - whole_2) - 1) < 0.06
    inputs = 64 * 2 * 4 * 64  # of two blocks
    assert counted(4, "full") - counted(2, "full") == inputs
    assert abs((counted(4, "selective") - counted(2, "selective") - inputs) / (linear_4 - linear_2) - 1) < 0.06
    assert counted(4, "full") < counted(4, "selective") < counted(4, "none")


def test_the_selective_form_keeps_experts_products_whatever_their_dispatch():
    """Reference: without capacity, padding at least the rows of grouped multiplication; no product of attention in either."""
    totals = {}
    for dispatch in ("grouped", "padded"):
        made = build(moe(dispatch=dispatch, every=1, d_ff=160), 0)
        with Kept() as linear:
            made.hidden(tokens(2, 16))
        totals[dispatch] = linear.total
    experts = 4 * 2 * 2 * 32 * (160 + 16)  # float32, layers, choices, tokens, widths of both products
    assert totals["padded"] >= totals["grouped"] > experts


def test_initial_values_are_switchs():
    """Truncated normal: deviation sqrt(s / fan_in) before the cut at two of them, which leaves 0.8796 of it; gains 1, biases 0."""
    config = dataclasses.replace(KINDS["gpt3"], d_model=64, n_heads=4, d_head=16, d_ff=512, init_scale=0.1, moe=None)
    made = build(config, 0)
    weight = made.blocks[0].ffn.w_out.weight
    deviation = (0.1 / 512) ** 0.5
    assert weight.abs().max() <= 2 * deviation
    assert abs(float(weight.detach().std()) / (0.8796 * deviation) - 1) < 0.02
    assert (made.blocks[0].ffn.w_out.bias == 0).all()
    assert (made.final_norm.weight == 1).all()


def test_a_weight_depends_on_seed_and_name_alone():
    """Not on the layers before it, nor on torch's generator."""
    torch.manual_seed(1)
    two = build(KINDS["llama"], 5)
    state = torch.get_rng_state()
    four = build(dataclasses.replace(KINDS["llama"], n_layers=4), 5)
    assert torch.equal(torch.get_rng_state(), state)
    names = dict(two.named_parameters())
    assert all(torch.equal(parameter, dict(four.named_parameters())[name]) for name, parameter in names.items())
    assert not torch.equal(two.blocks[0].ffn.w_in.weight, two.blocks[1].ffn.w_in.weight)
    assert not torch.equal(two.head.weight, build(KINDS["llama"], 6).head.weight)


def test_learned_positions_end_with_an_error_of_one_line():
    with pytest.raises(UserError, match="33 tokens, but the model's learned positions end at 32"):
        build(KINDS["gpt3"], 0)(tokens(1, 33))


def test_choices_come_on_request_and_only_then():
    made = build(moe(every=1), 0)
    assert made(tokens(2, 8)).routing.choices_BTK is None
    choices = made(tokens(2, 8), routing=RoutingOptions(record_choices=True)).routing.choices_BTK
    assert choices.shape == (2, 2, 8, 2)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, in its compiler
@pytest.mark.parametrize("dispatch", ["grouped", "padded"])
def test_the_whole_step_is_one_graph(dispatch):
    """torch.compile(fullgraph=True) by the eager backend of AOT autograd: losses and gradients as without."""
    sparse = dataclasses.replace(NOISY.moe, every=1, dispatch=dispatch)
    made = build(dataclasses.replace(NOISY, n_layers=1, moe=sparse), 0)
    wanted = step(made)
    torch.compiler.reset()
    got = step(torch.compile(made, backend="aot_eager", fullgraph=True))
    assert relative(got[0], wanted[0]) < 1e-6
    assert relative(got[1], wanted[1]) < 1e-5


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, in its compiler
def test_noise_survives_compiled_code():
    """Inductor's C++ against eager torch, to the bit: integers that overflow are the danger."""
    from train.noise import token_keys, uniform

    def draw(keys):
        return uniform(token_keys(keys, 16, 3).flatten(), 40)

    keys = noise_keys(1, 2, torch.arange(4))
    torch.compiler.reset()
    assert torch.equal(torch.compile(draw, fullgraph=True)(keys), draw(keys))


def test_models_run_on_the_meta_device():
    with torch.device("meta"):
        made = Decoder(moe(capacity_train=1.25, jitter=0.1))
        out = made(torch.zeros(2, 8, dtype=torch.int64), torch.zeros(2, 8, dtype=torch.int64), routing=RoutingOptions(
            "train", torch.zeros(2, dtype=torch.int64)
        ))  # fmt: skip
        assert out.loss_BT.shape == (2, 8)
        losses.training_loss(out, made.config, 16, 2).backward()
