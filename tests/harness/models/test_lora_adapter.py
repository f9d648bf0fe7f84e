import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from vtpbench.harness.models.load import describe_model, open_model
from vtpbench.harness.suite import assets
from vtpbench.harness.suite.suite import load
from vtpbench.pruners.errors import UserError
from vtpbench.pruners.oc_vtp.pruner import OCVTP

DECODER = r".*language_model.*\.(q_proj|v_proj|down_proj)"


def train(base: Path, folder: Path, **options) -> Path:
    """Save an adapter whose weights are all drawn, as if it had been trained."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForImageTextToText

    torch.manual_seed(0)
    chosen = {"r": 4, "lora_alpha": 8, "target_modules": DECODER, "init_lora_weights": False, **options}
    model = get_peft_model(AutoModelForImageTextToText.from_pretrained(base, dtype=torch.float32), LoraConfig(**chosen))
    for name, weight in model.named_parameters():
        if "modules_to_save" in name:
            weight.data.add_(0.05 * torch.randn_like(weight))
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def adapter(tiny_checkpoint, tmp_path_factory) -> Path:
    return train(tiny_checkpoint, tmp_path_factory.mktemp("adapter"), modules_to_save=["multi_modal_projector"])


@pytest.fixture
def own(adapter, tmp_path) -> Path:
    """Copy the adapter, to be spoiled."""
    return Path(shutil.copytree(adapter, tmp_path / "own"))


def opened(folder: Path, **options):
    return open_model(describe_model("tiny", str(folder), **options), torch.device("cpu"))


def edit(folder: Path, **values) -> None:
    file = folder / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def merged_by_hand(base: dict[str, torch.Tensor], adapter: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """W + (alpha / r) B A, and replaced layers, from the adapter's file alone."""
    parts = load_file(adapter / "adapter_model.safetensors")
    for name, value in parts.items():
        place = name.removeprefix("base_model.model.")
        if ".lora_A." in place:
            layer = place.replace(".lora_A.", ".")
            yield layer, base[layer] + 2.0 * parts[name.replace("lora_A", "lora_B")] @ value
        elif "multi_modal_projector" in place:
            yield place, value


def test_an_adapter_is_merged_into_the_model_that_it_names(adapter, tiny_checkpoint) -> None:
    loaded, base = opened(adapter).model.state_dict(), opened(tiny_checkpoint).model.state_dict()
    expected = dict(merged_by_hand(base, adapter))
    assert len(expected) == 6 * 3 + 4
    assert loaded.keys() == base.keys(), "no layer of the adapter stays beside the model's own"
    for name, value in base.items():
        torch.testing.assert_close(loaded[name], expected.get(name, value), rtol=0, atol=1e-6)
        assert torch.equal(loaded[name], value) == (name not in expected)


KINDS = [{}, {"use_dora": True}, {"use_rslora": True, "bias": "lora_only"}, {"target_modules": "all-linear"}]


@pytest.mark.parametrize("kind", KINDS, ids=["lora", "dora", "rslora", "all"])
def test_it_answers_as_peft_does_without_merging(kind, tiny_checkpoint, tools, tmp_path) -> None:
    from peft import PeftModel

    from vtpbench.pruners.registry import build

    adapter = train(tiny_checkpoint, tmp_path, **kind)
    unmerged, merged = opened(tiny_checkpoint), opened(adapter)
    PeftModel.from_pretrained(unmerged.model, adapter)
    vanilla = build("vanilla", {})
    logits = [tools.forward(m, tools.prepare(m, vanilla, None, tools.MIXED))[0] for m in (unmerged, merged)]
    torch.testing.assert_close(*logits, rtol=1e-4, atol=1e-4)


def test_half_precision_stays_half_precision(adapter) -> None:
    assert {weight.dtype for weight in opened(adapter, dtype="bfloat16").model.parameters()} == {torch.bfloat16}


def test_identity_is_that_of_base_and_adapter_wherever_they_lie(adapter, own, tiny_checkpoint, tmp_path) -> None:
    def weights(folder: Path) -> str:
        return describe_model("tiny", str(folder)).info.weights

    assert weights(adapter) != weights(tiny_checkpoint)
    shutil.copytree(tiny_checkpoint, own / "base")
    edit(own, base_model_name_or_path="base")
    assert weights(own) == weights(adapter)
    edit(own, lora_alpha=9)
    assert weights(own) != weights(adapter)


def test_a_network_beside_the_base_is_not_for_a_tower_that_the_adapter_changes(adapter, tiny_checkpoint, tmp_path) -> None:
    tower = train(tiny_checkpoint, tmp_path / "tower", target_modules=["q_proj"])
    assert describe_model("tiny", str(adapter)).shape.folder == str(tiny_checkpoint)
    shape = describe_model("tiny", str(tower)).shape
    assert shape.folder is None
    with pytest.raises(UserError, match="checkpoint"):
        OCVTP().needs(shape)


def test_an_adapter_is_described_without_torch(adapter) -> None:
    code = "import sys, pathlib; from vtpbench.harness.models.lora_adapter import read_adapter as read"
    code += f"; read(pathlib.Path({str(adapter)!r})); print('torch' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "False"


def test_data_lists_the_base_of_an_adapter(adapter, tiny_checkpoint, tmp_path) -> None:
    (tmp_path / "s.yaml").write_text(f"models: [{adapter}]\nmatrix: {{pruners: [vanilla], benchmarks: [demo-open]}}")
    models = [asset for asset in assets.examine(load(tmp_path / "s.yaml")) if asset.kind == "model"]
    assert [asset.place for asset in models] == [str(adapter), str(tiny_checkpoint)]
    assert models[1].used_by == f"{adapter.name} (base)"


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"peft_type": "IA3"}, "of type IA3; only LORA can be merged"),
        ({"base_model_name_or_path": None}, "names no base_model_name_or_path"),
        ({"base_model_name_or_path": "gone/away/here"}, r"model 'tiny \(base\)': no checkpoint folder gone/away/here"),
        ({"target_modules": ["no_such_layer"]}, "does not fit its base"),
        ({"r": 8}, "does not fit its base"),
    ],
)
def test_what_cannot_be_merged_says_why(config, message, own) -> None:
    edit(own, **config)
    with pytest.raises(UserError, match=message):
        opened(own)


def test_weights_that_the_base_has_no_place_for_are_refused(own) -> None:
    file = own / "adapter_model.safetensors"
    weights = load_file(file)
    foreign = "base_model.model.model.language_model.layers.99.self_attn.q_proj.lora_A.weight"
    save_file(weights | {foreign: torch.ones(4, 64)}, file)
    with pytest.raises(UserError, match=r"layers\.99.* has no counterpart"):
        opened(own)
    first = next(name for name in weights if "lora_B" in name)
    save_file({name: value for name, value in weights.items() if name != first}, file)
    with pytest.raises(UserError, match=r"lora_B.* has no counterpart"):
        opened(own)


def test_files_that_are_no_adapter_are_refused(own, tiny_checkpoint) -> None:
    shutil.copy(tiny_checkpoint / "model.safetensors", own)
    with pytest.raises(UserError, match="both an adapter and the weights of a model"):
        opened(own)
    (own / "model.safetensors").unlink()
    (own / "non_lora_trainables.bin").write_bytes(b"")
    with pytest.raises(UserError, match=r"merge it with LLaVA's merge_lora_weights\.py"):
        opened(own)
    (own / "non_lora_trainables.bin").unlink()
    (own / "adapter_model.safetensors").write_bytes(b"cut off")
    with pytest.raises(UserError, match=r"adapter_model\.safetensors cannot be read"):
        opened(own)
    (own / "adapter_model.safetensors").unlink()
    with pytest.raises(UserError, match=r"has no adapter_model\.safetensors"):
        opened(own)
    (own / "adapter_config.json").write_text("{")
    with pytest.raises(UserError, match="is not valid JSON"):
        opened(own)
