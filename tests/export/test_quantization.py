"""int8 before it is a graph: rotation, observing, the choice of a form, rounding weights."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from export import calibration
from export.quantization.forms import (
    READING,
    WRITING,
    InputForm,
    Policy,
    balance,
    choose_form,
    hadamard,
    lean,
)
from export.quantization.observation import ROWS_KEPT, Observed, observe
from export.quantization.products import int8_products
from export.quantization.rotation import can_rotate, rotate
from export.quantization.rounding import LEVELS, column_scales, nearest, round_weight
from model_core.attention import Explicit, MultiHeadAttention, Padded
from model_core.blocks import Block
from model_core.config import (
    LanguageModelConfig,
    NormConfig,
    NormKind,
    NormPlacement,
    Parallel,
    PositionKind,
    StackConfig,
    TransformerConfig,
)
from model_core.heads import LanguageModelHead
from model_core.norm import RMSNorm
from model_core.transformer import Transformer
from tests.model_core.test_transformer import DIM, INNER, LLAMA_LIKE, ORIGINAL, drawn, ids

assert LLAMA_LIKE.decoder is not None
STACK: StackConfig = LLAMA_LIKE.decoder
BIASED = replace(
    STACK,
    attention=tuple(replace(a, bias=True, output_bias=True) for a in STACK.attention),
    feed_forward=replace(STACK.feed_forward, gated=False, bias=True),
)
TEXTS = [ids(12, seed=seed).tolist() for seed in range(5)]


def decoder(stack: StackConfig) -> TransformerConfig:
    return replace(LLAMA_LIKE, decoder=stack)


def blocks(model: Transformer) -> list[Block]:
    assert model.decoder is not None
    return [block for block in model.decoder.blocks if isinstance(block, Block)]


# --- rotation -------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize(
    "stack",
    [
        STACK,
        BIASED,
        replace(BIASED, parallel=Parallel.ONE_NORM),
        replace(STACK, parallel=Parallel.TWO_NORMS),
    ],
    ids=["gated", "biased", "one norm", "two norms"],
)
def test_a_rotated_model_computes_what_it_did(stack: StackConfig, tied: bool) -> None:
    model = drawn(decoder(stack))
    head = LanguageModelHead(DIM, LanguageModelConfig(tied=tied), model.token_embedding)
    whole = ids(2, 9)
    before, weights = head(model.decode(whole, Padded.of(whole))), head.output.weight.clone()
    rotate(model, head)
    # Each weight is rounded to float32 once more; two layers.
    torch.testing.assert_close(
        head(model.decode(whole, Padded.of(whole))), before, rtol=1e-3, atol=1e-4
    )
    assert not torch.allclose(head.output.weight, weights)
    gains = [norm.weight for norm in model.modules() if isinstance(norm, RMSNorm)]
    assert all((gain == 1).all() for gain in gains)


@torch.no_grad()
def test_rotation_spreads_an_outlier_column_over_all() -> None:
    model = drawn(replace(LLAMA_LIKE, dim=64))
    model.token_embedding.weight[:, 3] += 1000.0
    head = LanguageModelHead(64, LanguageModelConfig(), model.token_embedding)
    streams: list[Tensor] = []
    blocks(model)[-1].register_forward_pre_hook(lambda _, inputs: streams.append(inputs[0]))
    whole = ids(2, 9)
    model.decode(whole, Padded.of(whole))
    rotate(model, head)
    model.decode(whole, Padded.of(whole))
    before, after = (x.abs().amax((0, 1)) / x.square().mean().sqrt() for x in streams)
    assert before.max() > 6  # of 8, if all were in one of 64 columns
    assert after.max() < 4


@pytest.mark.parametrize(
    "config",
    [
        ORIGINAL,
        replace(LLAMA_LIKE, encoder=STACK, decoder=None),
        replace(LLAMA_LIKE, norm=NormConfig(NormKind.LAYER, 1e-5)),
        decoder(replace(STACK, placement=NormPlacement.POST)),
        decoder(replace(STACK, placement=NormPlacement.BOTH)),
        decoder(replace(STACK, first_norm=False)),
        decoder(replace(STACK, final_norm=False)),
        decoder(replace(STACK, shared_weights=True)),
        decoder(replace(STACK, embedding=replace(STACK.embedding, norm=True))),
        decoder(
            replace(STACK, embedding=replace(STACK.embedding, position=PositionKind.LEARNED))
        ),
    ],
    ids=[
        "encoder-decoder", "encoder", "LayerNorm", "post", "both", "no first norm",
        "no final norm", "shared", "normed embedding", "positions",
    ],
)  # fmt: skip
def test_what_does_not_commute_with_a_rotation_is_refused(config: TransformerConfig) -> None:
    model = Transformer(config, Explicit())
    assert not can_rotate(model)
    with pytest.raises(TypeError, match="RMSNorm before each part"):
        rotate(model, LanguageModelHead(DIM, LanguageModelConfig(), model.token_embedding))


# --- rounding weights -----------------------------------------------------------------------------


def correlated(rows: int, columns: int) -> Tensor:
    """Inputs of eight directions and a little of everything."""
    generator = torch.Generator().manual_seed(3)
    mixing = torch.randn(8, columns, generator=generator)
    noise = torch.randn(rows, columns, generator=generator)
    return torch.randn(rows, 8, generator=generator) @ mixing + 0.05 * noise


def test_rounded_weights_make_up_for_one_another() -> None:
    x = correlated(600, 300)  # columns of three blocks
    weight = torch.randn(20, 300, generator=torch.Generator().manual_seed(4))
    weight[7] = 0.0
    rounded, scales = round_weight(weight, x.T @ x)
    assert torch.equal(rounded, rounded.round())
    assert rounded.abs().max() <= LEVELS
    assert scales[7] == 1
    assert (rounded[7] == 0).all()
    assert torch.equal(scales, column_scales(weight))

    def error(whole: Tensor) -> float:
        return float((x @ (whole * scales[:, None] - weight).T).norm())

    assert error(rounded) < 0.4 * error(nearest(weight / scales[:, None]))


def test_inputs_that_were_never_seen_round_to_the_nearest() -> None:
    weight = torch.randn(6, 40, generator=torch.Generator().manual_seed(4))
    units = nearest(weight / column_scales(weight)[:, None])
    for hessian in (None, torch.zeros(40, 40)):
        assert torch.equal(round_weight(weight, hessian)[0], units)


# --- forms ----------------------------------------------------------------------------------------

SMOOTH = torch.rand(128, generator=torch.Generator().manual_seed(5)) + 0.5


@pytest.mark.parametrize(
    "form",
    [
        InputForm(None, smooth=SMOOTH),
        InputForm(None, hadamard=64),
        InputForm(None, smooth=SMOOTH, hadamard=64),
    ],
    ids=["smooth", "hadamard", "both"],
)
def test_a_form_changes_its_basis_everywhere_alike(form: InputForm) -> None:
    x, weight = correlated(50, 128), torch.randn(5, 128, generator=torch.Generator().manual_seed(6))
    turned = form.turned(x)
    assert not torch.allclose(turned, x)
    torch.testing.assert_close(turned @ form.weight(weight).T, x @ weight.T, rtol=1e-4, atol=1e-3)
    hessian = form.hessian(x.T @ x)
    assert hessian is not None
    torch.testing.assert_close(hessian, turned.T @ turned, rtol=1e-4, atol=1e-2)
    assert form.hessian(None) is None


def test_the_hadamard_matrix_is_orthogonal_and_even() -> None:
    matrix = hadamard(64)
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(64))
    assert (matrix.abs() == 1 / 8).all()


def seen(rows: Tensor) -> Observed:
    """An observed input of one layer."""
    linear = nn.Linear(rows.shape[1], 64, bias=False)
    with torch.no_grad():
        linear.weight.normal_(generator=torch.Generator().manual_seed(7))
    return Observed([linear], rows.amin(0), rows.amax(0), rows.T @ rows, [rows])


FIXED = Policy(tolerable=0.012, row_scale=4.0)
"""One scale for all rows is preferred."""


def gaussian() -> Tensor:
    return torch.randn(256, 128, generator=torch.Generator().manual_seed(8))


@pytest.mark.parametrize("policy", [FIXED, WRITING], ids=["fixed", "writing"])
def test_tame_inputs_get_one_scale(policy: Policy) -> None:
    form = choose_form(seen(gaussian()), policy)
    assert form.step is not None
    assert not form.outliers


@pytest.mark.parametrize("policy", [READING, WRITING], ids=["reading", "writing"])
def test_rows_of_many_sizes_get_their_own(policy: Policy) -> None:
    form = choose_form(seen(gaussian() * torch.logspace(-1, 1, 256)[:, None]), policy)
    assert form.step is None


def test_a_column_that_is_huge_here_and_there_is_turned_away() -> None:
    rows = gaussian()
    rows[torch.arange(256), torch.arange(256) * 37 % 128] = torch.tensor([40.0, -40.0]).repeat(128)
    form = choose_form(seen(rows), WRITING)
    assert form.step is None
    assert form.hadamard == 64


def test_a_few_columns_that_reach_high_go_past_rounding() -> None:
    # As behind a GELU: nothing below, and two units that fire at some tokens.
    rows = gaussian().clamp_min(-0.17)
    rows[::40, [5, 9]] = 60.0
    form = choose_form(seen(rows), FIXED)
    assert {5, 9} <= set(form.outliers)


def rectified() -> Tensor:
    """As behind a GELU: rows of many sizes that never reach far below zero."""
    return (gaussian() * torch.logspace(0, 1.5, 256)[:, None]).clamp_min(-0.17)


def test_rows_that_reach_high_and_never_low_have_most_levels_above_zero() -> None:
    rows = rectified()
    # Nothing is good enough here, so that the best of these is taken.
    form = choose_form(seen(rows), Policy(tolerable=0.0, row_scale=1.0, turn=4.0))
    assert form.step is None
    assert form.least > 0
    lean_error, even_error = (
        float((found.rounded(rows) - rows).norm()) for found in (form, InputForm(None))
    )
    assert lean_error < 0.6 * even_error


def test_nothing_of_a_row_is_cut_off_above() -> None:
    form = lean(seen(rectified()))
    rows = rectified() * 1000
    above = rows > 0
    error = (form.rounded(rows) - rows).abs() / form.row_steps(rows)
    assert float(error[above].max()) <= 0.51


def test_balancing_leaves_ranges_closer_together() -> None:
    rows = gaussian() * torch.logspace(-1, 1, 128)
    divided = rows / balance(seen(rows))

    def spread(x: Tensor) -> float:
        return float(x.abs().amax(0).max() / x.abs().amax(0).min())

    assert spread(divided) < spread(rows) / 4


# --- observing ------------------------------------------------------------------------------------


def reader(model: Transformer):
    """What reads a text's token ids."""

    def read(token_ids: list[int]) -> None:
        rows = torch.tensor([token_ids])
        model.decode(rows, Padded.of(rows))

    return read


def linears(model: Transformer) -> list[nn.Linear]:
    return [module for module in model.modules() if isinstance(module, nn.Linear)]


def projections(attention: MultiHeadAttention) -> list[nn.Linear]:
    return [attention.query, attention.key, attention.value]


def test_layers_that_read_one_input_share_what_was_seen() -> None:
    model = drawn(LLAMA_LIKE)
    found = observe(linears(model), reader(model), TEXTS)
    by_layer = {linear: observed for observed in found for linear in observed.linears}
    assert len(by_layer) == sum(isinstance(module, nn.Linear) for module in model.modules())
    for block in blocks(model):
        assert block.feed_forward.gate is not None
        query, key, value = (by_layer[linear] for linear in projections(block.attention))
        assert query is key is value
        assert by_layer[block.feed_forward.gate] is by_layer[block.feed_forward.up]
    # Attention's input and output, what goes up and what comes down.
    assert len(found) == 4 * len(blocks(model))
    widths = sorted(len(observed.lowest) for observed in found)
    assert widths[-1] == INNER


@torch.no_grad()
@pytest.mark.parametrize("shared", [False, True], ids=["own weights", "shared weights"])
def test_what_was_seen_is_the_range_and_the_products_of_all_rows(shared: bool) -> None:
    model = drawn(decoder(replace(STACK, shared_weights=shared)))
    readers = blocks(model) if shared else blocks(model)[:1]
    rows: list[Tensor] = []
    hooks = [
        block.attention.query.register_forward_pre_hook(lambda _, x: rows.append(x[0][0]))
        for block in readers
    ]
    found = observe(linears(model), reader(model), TEXTS)
    for hook in hooks:
        hook.remove()
    assert len(found) == (4 if shared else 8)
    observed = found[0]
    assert observed.linears == projections(readers[0].attention)
    x = torch.cat(rows)
    assert len(x) == 12 * len(TEXTS) * len(readers)
    assert observed.hessian is not None
    torch.testing.assert_close(observed.hessian, x.T @ x, rtol=1e-4, atol=1e-3)
    assert torch.equal(observed.lowest, x.amin(0))
    assert torch.equal(observed.highest, x.amax(0))
    assert torch.equal(observed.rows, x)
    assert not any(linear._forward_pre_hooks for linear in observed.linears)


@torch.no_grad()
def test_the_rows_kept_are_spread_evenly_over_all_texts() -> None:
    linear = nn.Linear(1, 64)
    texts = [list(range(start, start + 9)) for start in range(0, 9 * 400, 9)]

    def read(token_ids: list[int]) -> None:
        linear(torch.tensor(token_ids, dtype=torch.float32)[:, None])

    (observed,) = observe([linear], read, texts)
    stride = 9 * 400 // ROWS_KEPT
    # Were it counted from each text's start, only first tokens would be kept.
    assert observed.rows[:, 0].tolist() == list(range(0, 9 * 400, stride))


def test_the_layers_in_int8_are_those_wide_enough_and_all_that_share_their_weights() -> None:
    model = drawn(decoder(replace(STACK, shared_weights=True)))
    products = int8_products(model, reader(model), TEXTS, WRITING, minimum_columns=INNER)
    first, second = blocks(model)
    assert {layer.out_features for layer in products if isinstance(layer, nn.Linear)} == {INNER}
    assert len(products) == 4  # gate and up, of two blocks
    assert products[first.feed_forward.up] is products[second.feed_forward.up]
    assert first.feed_forward.gate is not None
    up, gate = products[first.feed_forward.up], products[first.feed_forward.gate]
    assert up.form is gate.form
    assert up.weight.shape == (DIM, INNER)
    assert up.scales.shape == (INNER,)


def test_there_are_texts_to_calibrate_with() -> None:
    texts = calibration.texts()
    assert 80 <= len(texts) <= 120
    assert all(text.strip() for text in texts)
    assert len(set(texts)) == len(texts)
    assert not any("%%" in text for text in texts)
