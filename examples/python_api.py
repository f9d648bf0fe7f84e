"""vtpbench from Python, on the embedded model: `python examples/python_api.py [FOLDER]`; docs/python.md walks through it.

Needs no network and no GPU. Results of the run at the end go to FOLDER, by default `results`.
"""

# %%
import sys
from dataclasses import dataclass

from PIL import Image, ImageDraw
from torch import Tensor
from transformers import AutoModelForImageTextToText, AutoProcessor

import vtpbench
from vtpbench.harness.suite.options import model_path
from vtpbench.pruners.base import Pruner, TokenView

# %% Load a model: a hub id, a folder, or the embedded one
model = vtpbench.load("demo", device="cpu")
print(model)

# %% Something to ask about
image = Image.new("RGB", (96, 96), (112, 116, 120))
draw = ImageDraw.Draw(image)
draw.rectangle((16, 20, 34, 38), fill=(220, 30, 35))
draw.ellipse((58, 54, 78, 74), fill=(35, 80, 225))
question = "Is there a blue circle in the image?"
print(model.answer(image, question))

# %% Prune it
with model.pruned("visionzip", budget=48) as trace:
    print(model.answer(image, question))
print(trace.original, trace.tokens, len(trace.kept[0][0]))

# %% What stays, on the 12 x 12 grid of tokens
for row in range(12):
    print("".join("#" if 12 * row + column in trace.kept[0][0] else "." for column in range(12)))

# %% Options, seeds, shares of the tokens; cuts inside the language model
with model.pruned("fastv", budget="33.3%", layer=2) as trace:
    model.answers([image, [image, image], None], [question, "Are these two the same?", "What is 2 and 2?"])
print(list(trace.kept[0]), trace.tokens_per_layer[0])

with model.pruned("random", budget=16, seed=3) as trace:
    print(model.answer(image, question))


# %% A pruner of your own: an object, or "./norm.py:Norm" for a class in a file
@dataclass(frozen=True)
class Norm(Pruner):
    """Keep the vision tokens with the largest features."""

    order: float = 2.0

    def score(self, view: TokenView) -> Tensor:
        """Rank tokens, `(images, tokens)`; higher stays."""
        return view.features.norm(p=self.order, dim=-1)


with model.pruned(Norm(order=1.0), budget=24) as trace:
    print(model.answer(image, question), trace.tokens)

# %% A mistake is one line
try:
    with model.pruned("fastv", budget=16):
        pass
except vtpbench.UserError as e:
    print(type(e).__name__, e)

# %% Inside code that calls transformers itself
folder = model_path("demo")  # of your checkpoint, or a hub id
hf_model = AutoModelForImageTextToText.from_pretrained(folder, dtype="float32")
processor = AutoProcessor.from_pretrained(folder)
content = [{"type": "image"}, {"type": "text", "text": question}]
prompt = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
inputs = processor(images=image, text=prompt, return_tensors="pt")

with vtpbench.pruned(hf_model, "fastv", budget=64) as trace:
    ids = hf_model.generate(**inputs, max_new_tokens=8, do_sample=False)
print(processor.decode(ids[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip(), trace.tokens)

# %% The same model, asked as benchmarks ask: prompts, preprocessing and greedy decoding are vtpbench's
wrapped = vtpbench.wrap(hf_model, processor)
with wrapped.pruned("tome", budget=48) as trace:
    print(wrapped.answer(image, question), trace.tokens)

# %% Run a suite, or the part of it that is missing
out = sys.argv[1] if len(sys.argv) > 1 else "results"
only = {"pruner": ["random", "visionzip"], "budget": 48, "benchmark": "demo-choice", "seed": 0}
results = vtpbench.run("demo", out=out, only=only, limit=20, device="cpu", progress=False)
frame = results.to_pandas()
print(frame[["label", "budget", "observed_tokens", "score", "relative", "status"]].to_string(index=False))

# %% Questions that a pruner breaks
samples = results.samples()
score = samples.pivot_table(index="sample", columns="label", values="score")
print(len(samples), "answers,", int(((score.vanilla == 1) & (score.VisionZip == 0)).sum()), "broken by VisionZip")

# %% What was measured before: suites by name, or folders
print(vtpbench.read("demo", results=out))
print(results.markdown().splitlines()[2])
