"""Fine-tune the embedded model on ten pictures with LoRA, and save it in both forms: `python finetune.py`, in this folder."""

import csv
import sys
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from vtpbench.harness.suite.options import model_path

HERE, DATA = Path(__file__).parent, Path(__file__).parents[1] / "own_benchmark"
BASE = model_path("demo")  # yours: a folder, or a hub id such as llava-hf/llava-1.5-7b-hf
STEPS = int(sys.argv[1]) if len(sys.argv) > 1 else 12
SHORT = "\nAnswer the question using a single word or phrase."

torch.manual_seed(0)
processor = AutoProcessor.from_pretrained(BASE)
model = AutoModelForImageTextToText.from_pretrained(BASE, dtype=torch.float32)
lora = LoraConfig(r=8, lora_alpha=16, target_modules=r".*language_model.*\.(q|k|v|o|gate|up|down)_proj")
model = get_peft_model(model, lora)

with open(DATA / "questions.csv", encoding="utf-8", newline="") as file:
    rows = list(csv.DictReader(file))
images = [Image.open(DATA / "pictures" / row["picture"]).convert("RGB") for row in rows]
asked = [[{"type": "image"}, {"type": "text", "text": row["question"] + SHORT}] for row in rows]
prompts = [processor.apply_chat_template([{"role": "user", "content": each}], add_generation_prompt=True) for each in asked]
texts = [f"{prompt} {row['answer']}" for prompt, row in zip(prompts, rows, strict=True)]
batch = processor(images=images, text=texts, padding=True, padding_side="left", return_tensors="pt")
labels = batch["input_ids"].clone()
labels[:, :-1] = -100  # the loss is on the last token, the answer

optimizer = torch.optim.AdamW([weight for weight in model.parameters() if weight.requires_grad], lr=3e-4)
for step in range(STEPS):
    loss = model(**batch, labels=labels).loss
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    print(f"step {step}: loss {loss.item():.3f}")

model.save_pretrained(HERE / "adapter")  # the adapter alone: a few hundred kB
model.merge_and_unload().save_pretrained(HERE / "merged")  # a whole model
processor.save_pretrained(HERE / "merged")
