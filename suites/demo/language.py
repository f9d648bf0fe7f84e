"""Stages (ii) to (iv) of the demo model: projector and language model, first on drills, then everything together.

A drill shows the object's tokens and few others, at their true positions, and asks bare questions: finding what a question
names is learned in a few minutes there, and hardly at all among 144 tokens behind long instructions.

A picture's prompt is packed once with a dozen questions behind it; the mask lets a question see the picture and itself
only, and its positions start where the picture ends, so that each is trained exactly as it will be asked.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import LlavaForConditionalGeneration, PreTrainedTokenizerFast

from vtpbench.suites.demo.questions import SceneQuestion
from vtpbench.suites.demo.scenes import COLOURS, GRID, KINDS
from vtpbench.suites.demo.tower import DenseHeads, DenseTargets

CHAT_TEMPLATE = (
    "{% for m in messages %}{{ 'USER: ' if m.role == 'user' else ' ASSISTANT: ' }}"
    "{% if m.content is string %}{{ m.content }}{% else %}"
    "{% for c in m.content if c.type == 'image' %}{{ '<image>\\n' }}{% endfor %}"
    "{% for c in m.content if c.type == 'text' %}{{ c.text }}{% endfor %}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %} ASSISTANT:{% endif %}"
)
"""The layout of vicuna_v1 without its system sentence: `USER: <image>` newline question ` ASSISTANT:`."""
IGNORED = -100
ALIGN_WEIGHT = 0.5
"""Weight of the loss that makes a projected patch resemble the embeddings of the words for what it shows."""
SIDES = ("left", "right")
WORDS: dict[str, tuple[str, ...]] = {"kind": KINDS, "colour": tuple(COLOURS), "side": SIDES}
"""The words that a patch of an object can be aligned with."""


def train_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """Byte-level BPE over the words of the prompts; any text can be encoded."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    special = ["<unk>", "<s>", "</s>", "<pad>", "<image>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    core.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=1024, special_tokens=special, initial_alphabet=alphabet))
    core.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", core.token_to_id("<s>"))])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        extra_special_tokens={"image_token": "<image>"},
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


@dataclass(frozen=True)
class Pack:
    """Token ids of several pictures with their questions, right-padded to a common length.

    ids, positions, labels : (batch, length) int64;  segment : (batch, length), 0 = the picture's prompt, -1 = padding
    shown : (batch, vision tokens) bool; which of a picture's tokens the prompt shows
    """

    ids: Tensor
    positions: Tensor
    labels: Tensor
    segment: Tensor
    shown: Tensor

    def to(self, device: torch.device) -> Pack:
        """Move everything to a device."""
        return Pack(*(x.to(device) for x in (self.ids, self.positions, self.labels, self.segment, self.shown)))

    def mask(self) -> Tensor:
        """Additive attention mask `(batch, 1, length, length)`: causal, the prompt and the own question only."""
        query, key = self.segment[:, :, None], self.segment[:, None, :]
        length = self.ids.shape[1]
        seen = ((key == 0) | (key == query)) & (key >= 0)
        seen &= torch.ones(length, length, dtype=torch.bool, device=self.ids.device).tril()
        seen |= torch.eye(length, dtype=torch.bool, device=self.ids.device)  # padding looks at itself: no empty row
        return torch.zeros(seen.shape, device=seen.device).masked_fill(~seen, float("-inf"))[:, None]


class Packer:
    """Builds packs; fixed for a tokenizer and a number of vision tokens."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, n_vision: int) -> None:
        self.tokenizer, self.n_vision = tokenizer, n_vision
        self._cache: dict[str, list[int]] = {}

    def _encode(self, text: str) -> list[int]:
        if text not in self._cache:
            self._cache[text] = self.tokenizer.encode(text, add_special_tokens=False)
        return self._cache[text]

    def pack(self, questions: list[list[SceneQuestion]], shown: Tensor, bare: bool) -> Pack:
        """Pack the questions of several pictures.

        `shown` as in `Pack`; a picture of which nothing is shown leaves no trace in the prompt. `bare` questions come
        without closing instruction, the answer right behind them.
        """
        bos, eos = self.tokenizer.bos_token_id, self.tokenizer.eos_token_id
        image = self.tokenizer.convert_tokens_to_ids("<image>")
        rows: list[tuple[list[int], list[int], list[int], list[int]]] = []
        for asked, visible in zip(questions, shown, strict=True):
            ids = [bos, *self._encode("USER: ")]
            start, positions = len(ids), list(range(len(ids)))
            places = [start + p for p in visible.nonzero()[:, 0].tolist()]
            if places:
                newline = self._encode("\n")
                positions += [*places, *range(start + self.n_vision, start + self.n_vision + len(newline))]
                ids, start = [*ids, *[image] * len(places), *newline], start + self.n_vision + len(newline)
            labels, segment = [IGNORED] * len(ids), [0] * len(ids)
            for n, q in enumerate(asked):
                body = self._encode(q.bare if bare else q.prompt + " ASSISTANT:")
                answer = [*self._encode(" " + q.answer), eos]
                ids += body + answer
                positions += range(start, start + len(body) + len(answer))
                labels += [IGNORED] * (len(body) - 1) + answer + [IGNORED]  # a token's label is the one after it
                segment += [n + 1] * (len(body) + len(answer))
            rows.append((ids, positions, labels, segment))
        length = max(len(r[0]) for r in rows)
        fill = (self.tokenizer.pad_token_id, 0, IGNORED, -1)
        columns = [[r[k] + [fill[k]] * (length - len(r[k])) for r in rows] for k in range(4)]
        ids_, positions_, labels_, segment_ = (torch.tensor(column) for column in columns)
        return Pack(ids_, positions_, labels_, segment_, shown)


class LanguageTraining:
    """The parts of a LLaVA that answer, with the loss of a pack."""

    def __init__(
        self,
        model: LlavaForConditionalGeneration,
        heads: DenseHeads,
        tokenizer: PreTrainedTokenizerFast,
        align: tuple[str, ...],
    ) -> None:
        self.model, self.heads = model, heads
        self.image_id = model.config.image_token_id

        def words(names: tuple[str, ...]) -> Tensor:
            ids = [tokenizer.encode(" " + n, add_special_tokens=False) for n in names]
            assert all(len(i) == 1 for i in ids), "every attribute is one token"
            return torch.tensor([i[0] for i in ids], device=model.device)

        self.words = {name: words(WORDS[name]) for name in align}

    def loss(self, pixels: Tensor, targets: DenseTargets, pack: Pack, joint: bool) -> tuple[Tensor, float]:
        """Loss of a batch and the share of answer tokens that are right; `joint` trains the vision tower too."""
        core = self.model.model
        with torch.set_grad_enabled(joint):
            states = core.vision_tower(pixel_values=pixels, output_hidden_states=True).hidden_states
        projected = core.multi_modal_projector(states[-2][:, 1:])
        embeds = core.get_input_embeddings()(pack.ids)
        slots = pack.ids == self.image_id
        embeds = embeds.masked_scatter(slots.unsqueeze(-1), projected[pack.shown])
        hidden = core.language_model(
            inputs_embeds=embeds, attention_mask=pack.mask(), position_ids=pack.positions, use_cache=False
        ).last_hidden_state
        asked = pack.labels != IGNORED
        logits, wanted = self.model.lm_head(hidden[asked]), pack.labels[asked]
        loss = F.cross_entropy(logits, wanted) + ALIGN_WEIGHT * self._alignment(projected, targets)
        if joint:
            loss = loss + 0.5 * self.heads.loss(states, targets)[0]
        return loss, float((logits.argmax(-1) == wanted).float().mean())

    def _alignment(self, projected: Tensor, targets: DenseTargets) -> Tensor:
        table = self.model.get_input_embeddings().weight
        front = targets.kind != len(KINDS)
        column = torch.arange(front.shape[-1], device=front.device) % GRID
        side = (column >= GRID // 2).long().expand_as(front)
        wanted = {"kind": targets.kind, "colour": targets.colour, "side": side}
        loss = projected.new_zeros(())
        for name, words in self.words.items():
            loss = loss + F.cross_entropy(projected[front] @ table[words].T, wanted[name][front])
        return loss


def train_answers(
    answerer: LanguageTraining,
    batch: Callable[[int], tuple[Tensor, DenseTargets, Pack]],
    steps: int,
    learning_rate: float,
    joint: bool,
    log: Callable[[str], None],
) -> None:
    """Train in place; if `joint`, the vision tower follows at a fifth of the rate and keeps its dense supervision."""
    core = answerer.model.model
    parts = (core.language_model, core.multi_modal_projector, answerer.model.lm_head)
    answering = [p for part in parts for p in part.parameters()]
    groups: list[dict[str, Any]] = [{"params": answering, "lr": learning_rate}]
    if joint:
        groups.append({"params": [*core.vision_tower.parameters(), *answerer.heads.parameters()], "lr": learning_rate / 5})
    optimiser = torch.optim.AdamW(groups, weight_decay=0.05, betas=(0.9, 0.98))
    peaks = [g["lr"] for g in groups]
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, peaks, total_steps=steps, pct_start=0.05)
    answerer.model.train()
    window: list[float] = []
    for step in range(steps):
        loss, hits = answerer.loss(*batch(step), joint=joint)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_([p for g in groups for p in g["params"]], 1.0)
        optimiser.step()
        schedule.step()
        window.append(hits)
        if step % 50 == 49 or step == steps - 1:
            share = sum(window) / len(window)
            log(f"{step + 1}/{steps} loss {loss.item():.3f} answer tokens {share:.3f}")
            window.clear()
    answerer.model.eval()


def initialise(model: LlavaForConditionalGeneration) -> None:
    """Start the language model as one that attends to what resembles a token, and copies it.

    Queries and keys of a head start equal in the slow half of the rotary frequencies, which hardly tell positions apart,
    and near zero in the fast half; outputs start as transposed values, and words are read as they are written. Finding the
    object that a question names then need not be discovered, only refined: from an ordinary start this small model guessed
    by the question alone for the first 900 steps (0.73 of the answer tokens, hardly rising).
    """
    model.lm_head.weight.data.copy_(model.get_input_embeddings().weight)
    for layer in model.model.language_model.layers:
        attention = layer.self_attn
        groups, size = attention.num_key_value_groups, attention.head_dim
        keys = attention.k_proj.weight.data.normal_(std=0.18).view(-1, size, attention.k_proj.in_features)
        slow = torch.arange(size, device=keys.device) % (size // 2) > size // 4
        keys[:, ~slow] *= 0.1
        values = attention.v_proj.weight.data.view_as(keys)
        queries = attention.q_proj.weight.data.normal_(std=0.02).view(-1, size, attention.k_proj.in_features)
        queries += keys.repeat_interleave(groups, 0)
        attention.o_proj.weight.data.normal_(std=0.02).add_(values.repeat_interleave(groups, 0).flatten(0, 1).T)
