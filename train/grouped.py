"""The product of ragged groups of rows with a matrix each: torch's grouped_mm with three repairs.

* On a CPU, groups of fewer than four rows are computed as four: BLAS adds up a product of one to three rows in another order, so
  that a token's last bits would depend on how many others chose its expert. (The backward pass promises no such thing.)
* It compiles in every type: torch's meta function refuses float32 (torch 2.13), so that compiled code and the meta device see two
  operators of ours. Eager code calls torch's directly, since a custom operator costs more than a small product.
* The rule on strides is said in one line.

Tested on CPUs; not run on a GPU yet, where torch's product is taken as it is.

Shape suffixes: R rows, E groups, D width of a row, F width of a product.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pipelines.errors import UserError

_SMALLEST_GROUP = 4


def grouped_mm(x_RD: Tensor, w_EFD: Tensor, offsets_E: Tensor) -> Tensor:
    """[R, F]: rows of group e times w_EFD[e] transposed. offsets_E: int32, the end of each group; the last is R.

    Raises UserError where a width is not a multiple of 16 bytes.
    """
    check_widths(x_RD.dtype, w_EFD.shape[1], w_EFD.shape[2])
    product: Tensor = _GroupedProduct.apply(x_RD, w_EFD, offsets_E)
    return product


def check_widths(dtype: torch.dtype, *widths: int, otherwise: str = ", or dispatch: padded") -> None:
    """Raise UserError where grouped multiplication cannot take these widths: rows must be multiples of 16 bytes.

    otherwise: what else the error advises.
    """
    step = 16 // dtype.itemsize
    for width in widths:
        if width % step:
            raise UserError(
                f"width {width}: grouped multiplication in {str(dtype).removeprefix('torch.')} needs multiples of {step}; "
                f"choose {-(-width // step) * step}{otherwise}"
            )


class _GroupedProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_RD: Tensor, w_EFD: Tensor, offsets_E: Tensor) -> Tensor:
        ctx.save_for_backward(x_RD, w_EFD, offsets_E)
        return (_rows_op if _opaque(x_RD) else _rows)(x_RD, w_EFD, offsets_E)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        x_RD, w_EFD, offsets_E = ctx.saved_tensors
        grad_RF, opaque = grads[0].contiguous(), _opaque(x_RD)
        grad_x = (_rows_op if opaque else _plain_rows)(grad_RF, w_EFD.transpose(1, 2), offsets_E)
        return grad_x, (_weights_op if opaque else _weights)(grad_RF, x_RD, offsets_E), None


def _opaque(x: Tensor) -> bool:
    return torch.compiler.is_compiling() or x.is_meta


def _plain_rows(x_RD: Tensor, w_EFD: Tensor, offsets_E: Tensor) -> Tensor:
    return F.grouped_mm(x_RD, w_EFD.transpose(1, 2), offs=offsets_E)


def _rows(x_RD: Tensor, w_EFD: Tensor, offsets_E: Tensor) -> Tensor:
    y_RF = _plain_rows(x_RD, w_EFD, offsets_E)
    if x_RD.device.type != "cpu":
        return y_RF
    rows: list[int] = []
    products: list[Tensor] = []
    start = 0
    for expert, end in enumerate(offsets_E.tolist()):
        if 0 < end - start < _SMALLEST_GROUP:
            four_RD = F.pad(x_RD[start:end], (0, 0, 0, _SMALLEST_GROUP - (end - start)))
            products.append((four_RD @ w_EFD[expert].T)[: end - start])
            rows += range(start, end)
        start = end
    return y_RF.index_copy(0, torch.tensor(rows), torch.cat(products)) if rows else y_RF


def _weights(grad_RF: Tensor, x_RD: Tensor, offsets_E: Tensor) -> Tensor:
    return F.grouped_mm(grad_RF.T, x_RD, offs=offsets_E)


_rows_op = torch.library.custom_op("winnow::grouped_mm", _rows, mutates_args=())
_weights_op = torch.library.custom_op("winnow::grouped_mm_weight", _weights, mutates_args=())


@_rows_op.register_fake
def _(x_RD: Tensor, w_EFD: Tensor, offsets_E: Tensor) -> Tensor:
    return x_RD.new_empty(x_RD.shape[0], w_EFD.shape[1])


@_weights_op.register_fake
def _(grad_RF: Tensor, x_RD: Tensor, offsets_E: Tensor) -> Tensor:
    return x_RD.new_empty(offsets_E.shape[0], grad_RF.shape[1], x_RD.shape[1])
