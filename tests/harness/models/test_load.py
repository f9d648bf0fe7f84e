import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import torch
from pruner_options import BEHIND, JOINING, UNSUPPORTED
from safetensors.torch import load_file, save_file

from vtpbench.harness.models.dummy import describe_dummy
from vtpbench.harness.models.llava import VICUNA_V1
from vtpbench.harness.models.load import describe_model, find_checkpoint, open_model, own_dtype
from vtpbench.harness.models.template import PLACES, chat_template
from vtpbench.harness.models.tiny import TINY
from vtpbench.harness.pruning.pipeline import Pipeline
from vtpbench.harness.run.job import RunOptions, make_job
from vtpbench.pruners.errors import UserError
from vtpbench.pruners.registry import build

VANILLA = build("vanilla", {})
USUAL = dict.fromkeys(JOINING, "dynamic")
"""Preprocessing of tiny models where it is not the first of their family."""


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory, tiny, tiny_checkpoint, save_llava) -> dict[str, Path]:
    """Tiny models as transformers saves them."""
    from transformers import LlavaNextProcessor

    llava_next = save_llava(tiny("llava_next"), LlavaNextProcessor, tmp_path_factory.mktemp("llava_next"))
    saved = {"llava": tiny_checkpoint, "llava_next": llava_next}
    for name in BEHIND:
        model, folder = tiny(name), tmp_path_factory.mktemp(name)
        for part in (model.model, model.image_processor, model.tokenizer):
            part.save_pretrained(folder)
        (folder / "chat_template.json").write_text(json.dumps({"chat_template": model.chat_template}))
        saved[name] = folder
    return saved


@pytest.mark.parametrize("name", list(TINY))
def test_a_saved_model_is_the_same_model(name, checkpoints, tiny, tools) -> None:
    described = describe_model("tiny", str(checkpoints[name]), preprocessing=USUAL.get(name))
    loaded, same = open_model(described, torch.device("cpu")), tiny(name)
    assert described.info.family == name
    assert (described.shape.vision_layers, described.shape.decoder_layers) == (4, 6)
    logits = [tools.forward(m, tools.prepare(m, VANILLA, None, tools.MIXED))[0] for m in (loaded, same)]
    assert torch.equal(*logits)


def test_preprocessing_is_the_familys_first_unless_another_is_asked_for(checkpoints) -> None:
    expected = {"llava": ("pad", 16), "llava_next": ("fixed672", 80)}
    expected |= {"qwen2_5_vl": ("dynamic", None), "llava_onevision": ("native", None)}
    expected |= dict.fromkeys(("qwen2_vl", "qwen3_vl", "internvl"), ("lmms_eval", None))
    for name, folder in checkpoints.items():
        info = describe_model("tiny", str(folder)).info
        assert (info.preprocessing, info.vision_tokens) == expected[name]
    assert describe_model("tiny", str(checkpoints["llava_next"]), preprocessing="native").info.vision_tokens is None
    with pytest.raises(UserError, match=r"'pad' is not one of this model's \(fixed672, native\)"):
        describe_model("tiny", str(checkpoints["llava_next"]), preprocessing="pad")


@pytest.mark.parametrize(
    ("named", "dtype"),
    [
        ({"dtype": "bfloat16"}, "bfloat16"),
        ({"torch_dtype": "float16"}, "float16"),
        ({"torch_dtype": "torch.float16"}, "float16"),
        ({"text_config": {"torch_dtype": "bfloat16"}}, "bfloat16"),
        ({"dtype": "float16", "text_config": {"dtype": "float32"}}, "float16"),
        ({}, "float32"),
        ({"dtype": None, "text_config": None}, "float32"),
    ],
)
def test_the_default_dtype_is_what_the_checkpoint_names(named: dict[str, object], dtype: str) -> None:
    assert own_dtype(named, "m") == dtype


def test_a_dtype_that_no_model_is_run_in_says_what_to_write() -> None:
    with pytest.raises(UserError, match=r"model 'm': its config\.json names the dtype float64; .* dtype: float16"):
        own_dtype({"dtype": "float64"}, "m")


def test_suites_commands_and_models_with_random_weights_share_the_default(checkpoints, tmp_path) -> None:
    folder = Path(shutil.copytree(checkpoints["llava"], tmp_path / "half"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "dtype": "bfloat16"}))
    models = f"models: [{folder}, {{path: {folder}, label: said, dtype: float32}}]"
    (tmp_path / "s.yaml").write_text(f"{models}\nmatrix: {{pruners: [vanilla], benchmarks: [demo-open]}}")

    def dtypes(**chosen) -> dict[str, str]:
        job = make_job(str(tmp_path / "s.yaml"), RunOptions(tmp_path / "out", **chosen), print)
        return {label: model.info.dtype for label, model in job.models.items()}

    assert dtypes() == {"half": "bfloat16", "said": "float32"}
    assert dtypes(settings=["dtype=float16"]) == {"half": "float16", "said": "float32"}
    assert describe_model("m", str(folder)).info.dtype == "bfloat16"
    assert describe_dummy(str(folder / "config.json")).info.dtype == "bfloat16"
    loaded = open_model(describe_model("m", str(folder)), torch.device("cpu"))
    assert {weight.dtype for weight in loaded.model.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize(("name", "dtype"), [("llava-1.5-7b", "float16"), ("qwen2.5-vl-7b", "bfloat16")])
def test_shipped_configurations_name_the_dtype_that_was_published(name: str, dtype: str) -> None:
    assert describe_dummy(name).info.dtype == dtype


def test_a_qwen_without_a_chat_template_says_so(checkpoints, tmp_path) -> None:
    for file in checkpoints["qwen2_5_vl"].iterdir():
        if file.name != "chat_template.json":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    with pytest.raises(UserError, match="no chat template"):
        open_model(describe_model("tiny", str(tmp_path)), torch.device("cpu"))


@pytest.mark.parametrize("name", list(TINY))
@pytest.mark.parametrize("pruner", ["vanilla", "fastv", "visionzip", "downsample"])
def test_half_precision_runs(name, pruner, tiny, tools) -> None:
    if (pruner, name) in UNSUPPORTED:
        pytest.skip("it says so")
    family, chosen = tiny(name, dtype=torch.bfloat16), build(pruner, {})
    batch = tools.prepare(family, chosen, None if pruner == "vanilla" else 0.5, tools.MIXED)
    logits, _ = tools.forward(family, batch)
    assert logits.dtype == torch.bfloat16
    assert logits[:, -1].isfinite().all()


def copy(folder: Path, to: Path) -> Path:
    return Path(shutil.copytree(folder, to / "copy"))


def opened(folder: Path, **options):
    return open_model(describe_model("tiny", str(folder), **options), torch.device("cpu"))


FAMILIES = list(TINY)


@pytest.mark.parametrize("name", FAMILIES)
def test_of_generation_settings_only_the_ends_of_answers_count(name, checkpoints, tmp_path, tools) -> None:
    folder = copy(checkpoints[name], tmp_path)
    (folder / "generation_config.json").write_text(
        json.dumps(
            {
                "eos_token_id": [2, 7],
                "repetition_penalty": 1.5,
                "no_repeat_ngram_size": 1,
                "suppress_tokens": list(range(100, 200)),
                "return_dict_in_generate": True,
                "cache_implementation": "static",
                "do_sample": True,
                "temperature": 0.2,
            }
        )
    )
    texts = []
    for source in (folder, checkpoints[name]):
        family = opened(source)
        batch = tools.prepare(family, VANILLA, None, tools.MIXED[:1])
        texts.append(Pipeline(family).generate(batch, 12)[0])
        assert family.model.generation_config.eos_token_id == ([2, 7] if source == folder else 2)
    assert texts[0] == texts[1]


@pytest.mark.parametrize("name", FAMILIES)
def test_missing_and_misshapen_weights_are_named(name, checkpoints, tmp_path) -> None:
    folder = copy(checkpoints[name], tmp_path)
    weights = load_file(folder / "model.safetensors")
    (norm,) = [key for key in weights if key.endswith("layers.1.input_layernorm.weight")]
    whole = weights.pop(norm)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=r"lacks weights: \S*layers.1.input_layernorm.weight; fetch all"):
        opened(folder)
    save_file({**weights, norm: whole[:5].clone()}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=r"weights of another shape than config.json says: \S*layers.1.input_layernorm.weight;"):
        opened(folder)


def test_every_file_of_a_checkpoint_counts_and_its_place_does_not(checkpoints, tmp_path) -> None:
    def weights(of: Path) -> str:
        return describe_model("tiny", str(of)).info.weights

    folder = copy(checkpoints["llava"], tmp_path)
    before = weights(checkpoints["llava"])
    assert weights(folder) == before
    for name in ("config.json", "generation_config.json", "processor_config.json", "tokenizer.json", "chat_template.jinja"):
        text = (folder / name).read_text()
        (folder / name).write_text(text + "\n")
        assert weights(folder) != before, name
        (folder / name).write_text(text)
    (folder / "oc-vtp.safetensors").write_bytes(b"of a pruner")
    assert weights(folder) == before


def test_a_prompt_template_is_replaced(checkpoints, tmp_path) -> None:
    short = tmp_path / "short.jinja"
    short.write_text("{% for c in messages[0].content %}{{ '<image>' if c.type == 'image' else c.text }}{% endfor %} A:")
    own, other = (describe_model("tiny", str(checkpoints["llava"]), prompt=prompt) for prompt in (None, str(short)))
    assert own.info.prompt != other.info.prompt
    assert own.info.weights == other.info.weights
    assert open_model(other, torch.device("cpu")).render("Why?", 1) == "<image>Why? A:"
    named = describe_model("tiny", str(checkpoints["llava"]), prompt="vicuna_v1")
    assert (named.info.prompt, named.template) == ("vicuna_v1", VICUNA_V1)


def put_template(file: Path, template: str) -> None:
    if file.suffix == ".jinja":
        file.write_text(template)
    else:
        known = json.loads(file.read_text()) if file.is_file() else {}
        file.write_text(json.dumps({**known, "chat_template": template}))


@pytest.mark.parametrize("place", PLACES)
def test_a_checkpoints_template_is_found_where_transformers_finds_it(place, checkpoints, tmp_path) -> None:
    from transformers import AutoProcessor

    folder = copy(checkpoints["llava"], tmp_path)
    (folder / "chat_template.jinja").unlink()
    for later in PLACES[PLACES.index(place) :]:
        put_template(folder / later, f"from {later}")
    processor = AutoProcessor.from_pretrained(folder)
    assert chat_template(folder) == f"from {place}"
    assert (processor.chat_template or processor.tokenizer.chat_template) == f"from {place}"


@pytest.mark.parametrize("name", ["llava", "llava_next"])
def test_a_template_in_the_processors_configuration_is_used_and_recorded(name, checkpoints, tmp_path) -> None:
    folder = copy(checkpoints[name], tmp_path)
    before = describe_model("tiny", str(folder)).info.prompt
    put_template(folder / "processor_config.json", "{% for c in messages[0].content %}{{ c.text }}{% endfor %} A:")
    assert describe_model("tiny", str(folder)).info.prompt != before
    assert opened(folder).render("Why?", 0) == "Why? A:"


def test_of_several_templates_one_must_be_given(checkpoints, tmp_path) -> None:
    folder = copy(checkpoints["qwen2_5_vl"], tmp_path)
    (folder / "chat_template.json").write_text('{"chat_template": [{"name": "default", "template": ""}]}')
    with pytest.raises(UserError, match="holds several chat templates; give the one to use as the model's `prompt`"):
        describe_model("tiny", str(folder))
    (tmp_path / "own.jinja").write_text("{% for c in messages[0].content %}{{ c.text or '<|image_pad|>' }}{% endfor %} A:")
    assert opened(folder, prompt=str(tmp_path / "own.jinja")).render("Why?", 1) == "<|image_pad|>Why? A:"


@pytest.mark.parametrize(
    ("template", "message"),
    [("{% for %}", "the prompt template is wrong"), ("{{ messages[0].content }}", "gives 0 image tokens for 2 images")],
)
def test_a_prompt_template_that_does_not_fit_is_refused(template, message, checkpoints, tmp_path) -> None:
    (tmp_path / "wrong.jinja").write_text(template)
    with pytest.raises(UserError, match=message):
        opened(checkpoints["llava"], prompt=str(tmp_path / "wrong.jinja"))
    with pytest.raises(UserError, match="neither vicuna_v1 nor a Jinja file"):
        describe_model("tiny", str(checkpoints["llava"]), prompt=str(tmp_path / "absent.jinja"))


class BrokenHub(BaseHTTPRequestHandler):
    """Answers that it is there, and nothing else."""

    busy: bool

    def do_HEAD(self) -> None:
        self.send_response(200)
        self.end_headers()

    def do_GET(self) -> None:
        if self.busy:
            self.send_error(503)  # else it hangs up

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def served(busy: bool) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Hub", (BrokenHub,), {"busy": busy}))
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("busy", "said"),
    [
        (True, r"the hub is out of reach \(Server error '503 Service Unavailable' for url .*\); run `hf download some/model`"),
        (False, "some/model cannot be fetched from the hub: Server disconnected without sending a response"),
    ],
)
def test_a_hub_that_breaks_off_is_told_with_its_error(busy, said, monkeypatch, tmp_path) -> None:
    import datasets.config
    from huggingface_hub import constants

    with served(busy) as endpoint:
        for proxy in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.delenv(proxy, raising=False)
        monkeypatch.setattr(constants, "ENDPOINT", endpoint)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
        monkeypatch.setattr(datasets.config, "HF_ENDPOINT", endpoint)
        monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
        with pytest.raises(UserError, match=said):
            find_checkpoint("some/model", None, "mine")
