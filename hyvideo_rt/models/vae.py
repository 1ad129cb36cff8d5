"""The causal 3-D VAE `884-16c-hy`: pixels to latents and back, 8x in space and 4x in time.

Tensors are [B, C, T, H, W]. The first frame stands alone, every further latent frame is four frames. Weights
keep upstream's names. Neither network tiles; `tiling` calls them tile by tile.
"""

import torch
from torch import Tensor, nn

from hyvideo_rt.config import VAEConfig
from hyvideo_rt.kernels.ops import REFERENCE, Ops

EPS = 1e-6
Stride = tuple[int, int, int]  # T, H, W


class CausalVAE(nn.Module):
    def __init__(self, config: VAEConfig, ops: Ops = REFERENCE) -> None:
        super().__init__()
        self.config, self.ops = config, ops
        latents = config.latent_channels
        self.encoder = Encoder(config, ops)
        self.decoder = Decoder(config, ops)
        self.quant_conv = nn.Conv3d(2 * latents, 2 * latents, 1)
        self.post_quant_conv = nn.Conv3d(latents, latents, 1)

    def encode(self, video: Tensor) -> Tensor:
        """Mean and log-variance, stacked: moments [B, 2 * 16, T, H / 8, W / 8].

        video [B, 3, F, H, W] in [-1, 1] with F = 4 (T - 1) + 1.
        """
        moments: Tensor = self.quant_conv(self.encoder(video))
        return moments

    def decode(self, z: Tensor) -> Tensor:
        """Latents z [B, 16, T, H, W], unscaled, to video [B, 3, 4 (T - 1) + 1, 8 H, 8 W] around [-1, 1]."""
        video: Tensor = self.decoder(self.post_quant_conv(z))
        return video


def lay_out(vae: CausalVAE) -> CausalVAE:
    """The same VAE, its convolutions' weights in the memory format that its operators want, in place."""
    for module in vae.modules() if vae.ops.channels_last else ():
        if isinstance(module, nn.Conv3d):
            weight = module.weight
            weight.data = weight.data.contiguous(memory_format=torch.channels_last_3d)
    return vae


class VAEDecoding(nn.Module):
    """The half that decodes, as a module of its own that shares the weights: `CausalVAE.decode`."""

    def __init__(self, vae: CausalVAE) -> None:
        super().__init__()
        self.post_quant_conv, self.decoder = vae.post_quant_conv, vae.decoder

    def forward(self, z: Tensor) -> Tensor:
        video: Tensor = self.decoder(self.post_quant_conv(z))
        return video


class Encoder(nn.Module):
    def __init__(self, config: VAEConfig, ops: Ops) -> None:
        super().__init__()
        channels, groups = config.block_channels, config.norm_groups
        self.conv_in = CausalConv3d(config.in_channels, channels[0], ops)
        self.down_blocks = nn.ModuleList(
            DownBlock(size_in, size, config.layers_per_block, groups, stride, ops)
            for size_in, size, stride in zip(
                (channels[0], *channels), channels, _strides(channels), strict=False
            )
        )
        self.mid_block = MidBlock(channels[-1], groups, ops)
        self.conv_norm_out = nn.GroupNorm(groups, channels[-1], eps=EPS)
        self.conv_out = CausalConv3d(channels[-1], 2 * config.latent_channels, ops)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        for block in self.down_blocks:
            x = block(x)
        x = self.mid_block(x)
        return self.conv_out.after_norm(x, self.conv_norm_out)


class Decoder(nn.Module):
    def __init__(self, config: VAEConfig, ops: Ops) -> None:
        super().__init__()
        channels, groups = config.block_channels[::-1], config.norm_groups
        self.conv_in = CausalConv3d(config.latent_channels, channels[0], ops)
        self.mid_block = MidBlock(channels[0], groups, ops)
        self.up_blocks = nn.ModuleList(
            UpBlock(size_in, size, config.layers_per_block + 1, groups, factor, ops)
            for size_in, size, factor in zip(
                (channels[0], *channels), channels, _strides(channels), strict=False
            )
        )
        self.conv_norm_out = nn.GroupNorm(groups, channels[-1], eps=EPS)
        self.conv_out = CausalConv3d(channels[-1], config.out_channels, ops)

    def forward(self, z: Tensor) -> Tensor:
        x = self.mid_block(self.conv_in(z))
        for block in self.up_blocks:
            x = block(x)
        return self.conv_out.after_norm(x, self.conv_norm_out)


class MidBlock(nn.Module):
    def __init__(self, channels: int, groups: int, ops: Ops) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(Resnet(channels, channels, groups, ops) for _ in range(2))
        self.attentions = nn.ModuleList([FrameCausalAttention(channels, groups, ops)])

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.resnets[1](self.attentions[0](self.resnets[0](x)))
        return out


class DownBlock(nn.Module):
    def __init__(self, size_in: int, size: int, layers: int, groups: int, stride: Stride, ops: Ops) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(Resnet(size if i else size_in, size, groups, ops) for i in range(layers))
        self.downsamplers = nn.ModuleList()
        if stride != (1, 1, 1):
            self.downsamplers.append(Downsample(size, stride, ops))

    def forward(self, x: Tensor) -> Tensor:
        for module in (*self.resnets, *self.downsamplers):
            x = module(x)
        return x


class UpBlock(nn.Module):
    def __init__(self, size_in: int, size: int, layers: int, groups: int, factor: Stride, ops: Ops) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(Resnet(size if i else size_in, size, groups, ops) for i in range(layers))
        self.upsamplers = nn.ModuleList()
        if factor != (1, 1, 1):
            self.upsamplers.append(Upsample(size, factor, ops))

    def forward(self, x: Tensor) -> Tensor:
        for module in (*self.resnets, *self.upsamplers):
            x = module(x)
        return x


class Resnet(nn.Module):
    def __init__(self, size_in: int, size: int, groups: int, ops: Ops) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, size_in, eps=EPS)
        self.conv1 = CausalConv3d(size_in, size, ops)
        self.norm2 = nn.GroupNorm(groups, size, eps=EPS)
        self.conv2 = CausalConv3d(size, size, ops)
        self.conv_shortcut = CausalConv3d(size_in, size, ops, kernel=1) if size_in != size else None

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1.after_norm(x, self.norm1)
        h = self.conv2.after_norm(h, self.norm2)
        shortcut: Tensor = x if self.conv_shortcut is None else self.conv_shortcut(x)
        out: Tensor = h + shortcut
        return out


class FrameCausalAttention(nn.Module):
    """One head over all pixels of all frames; a pixel sees the frames up to its own."""

    def __init__(self, channels: int, groups: int, ops: Ops) -> None:
        super().__init__()
        self.ops = ops
        self.group_norm = nn.GroupNorm(groups, channels, eps=EPS)
        self.to_q = nn.Linear(channels, channels)
        self.to_k = nn.Linear(channels, channels)
        self.to_v = nn.Linear(channels, channels)
        self.to_out = nn.ModuleList([nn.Linear(channels, channels)])

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.group_norm(x.flatten(2)).transpose(1, 2)
        q, k, v = (project(tokens).unsqueeze(2) for project in (self.to_q, self.to_k, self.to_v))
        attn = self.ops.frame_causal_attention(q, k, v, x.shape[2])
        out: Tensor = self.to_out[0](attn)
        return x + out.transpose(1, 2).view_as(x)


class Downsample(nn.Module):
    def __init__(self, channels: int, stride: Stride, ops: Ops) -> None:
        super().__init__()
        self.conv = CausalConv3d(channels, channels, ops, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(x)
        return out


class Upsample(nn.Module):
    """Nearest neighbour, then a convolution. The first frame grows in space only: T frames become 2T - 1."""

    def __init__(self, channels: int, factor: Stride, ops: Ops) -> None:
        super().__init__()
        self.factor = factor
        self.conv = CausalConv3d(channels, channels, ops)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(x, self.factor)
        return out


class CausalConv3d(nn.Module):
    """A convolution that never sees a later frame; all borders repeat their last value."""

    def __init__(
        self, size_in: int, size: int, ops: Ops, *, kernel: int = 3, stride: Stride = (1, 1, 1)
    ) -> None:
        super().__init__()
        self.ops = ops
        self.conv = nn.Conv3d(size_in, size, kernel, stride=stride)
        side = kernel // 2
        self.pad = (side, side, side, side, kernel - 1, 0)  # W, H, T

    def forward(self, x: Tensor, upsample: Stride = (1, 1, 1)) -> Tensor:
        """Of x, made larger first by repeating it (T, H, W) times."""
        if any(self.pad) or upsample != (1, 1, 1):
            x = self.ops.upsample_pad(x, upsample, self.pad)
        return self._convolve(x)

    def after_norm(self, x: Tensor, norm: nn.GroupNorm) -> Tensor:
        """Of ``silu(norm(x))``."""
        return self._convolve(
            self.ops.group_norm_silu_pad(x, norm.weight, norm.bias, norm.num_groups, self.pad)
        )

    def _convolve(self, x: Tensor) -> Tensor:
        assert self.conv.bias is not None
        return self.ops.conv3d(x, self.conv.weight, self.conv.bias, self.conv.stride)


def _strides(channels: tuple[int, ...]) -> list[Stride]:
    """(T, H, W) between the levels, finest or coarsest first: space thrice, time on the last two of these."""
    assert len(channels) == 4, channels
    return [(1, 2, 2), (2, 2, 2), (2, 2, 2), (1, 1, 1)]
