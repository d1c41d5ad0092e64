"""The loss is the well-known one but for known positives, and the saved folder is what other libraries load."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from conftest import NO_FEATURES
from datasets import Dataset
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses import MatryoshkaLoss, MultipleNegativesRankingLoss
from test_retrieval_encoding import document, queries, settings
from transformers import AutoModel, AutoTokenizer, PreTrainedModel, Trainer, TrainingArguments

from finetrail.errors import UserError
from finetrail.evaluation.inference import torch_forward
from finetrail.evaluation.splits import Encoded
from finetrail.patches.speedups import speed_up
from finetrail.schema import Bootstrap, Lora
from finetrail.tasks.retrieval import encoding, loading, modeling, scoring, validation
from finetrail.tasks.retrieval.corpus import DOCUMENTS
from finetrail.tasks.retrieval.settings import Evaluate, Train
from finetrail.training import adapters, memory

TRAIN = Train.model_construct(scale=20.0)
EVALUATE = Evaluate(
    batch_size=4,
    bootstrap=Bootstrap(samples=100, confidence=0.95, seed=0),
    worst_errors=10,
    index="exact",
    bm25_terms="words",
    candidates=None,
)
TEXTS = ["anna lives in paris .", "nobody was at home .", "the train to oslo left", "lee", "quito is far from oslo !"]


@pytest.fixture
def base(tiny_base_model: Callable[[Path], Path], tmp_path: Path) -> Path:
    return tiny_base_model(tmp_path / "base") / "weights"


@pytest.fixture
def tokenizer(tiny_wordpiece: Path) -> Any:
    return AutoTokenizer.from_pretrained(tiny_wordpiece)


def build(base: Path, **changes: Any) -> tuple[PreTrainedModel, dict[str, Any]]:
    target = encoding.target(iter([]), settings(max_length=20, **changes))
    return modeling.build_model(base, target, TRAIN, NO_FEATURES), target


def features_of(tokenizer: Any, table: pa.Table, **changes: Any) -> pa.Table:
    chosen = settings(max_length=20, max_query_length=20, **changes)
    return encoding.Encoder(tokenizer, {}, chosen).encode(table, np.arange(len(table)))


def pairs(*rows: tuple[str, str, list[str]]) -> pa.Table:
    return queries(*((q, [document(d, d)], [document(n, n) for n in negatives]) for q, d, negatives in rows))


def saved(model: PreTrainedModel, tokenizer: Any, folder: Path) -> Path:
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


# --- the loss -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("negatives", [0, 2])
def test_the_loss_is_multiple_negatives_ranking(base: Path, tokenizer: Any, tmp_path: Path, negatives: int) -> None:
    model, _ = build(base)
    model.eval()
    rows = [
        ("anna", TEXTS[0], ["oslo", "the café"]),
        ("home", TEXTS[1], ["paris", "lee was"]),
        ("who left", TEXTS[2], ["a friend", "quito"]),
    ]
    table = pairs(*((q, d, others[:negatives]) for q, d, others in rows))

    batch = modeling.build_collator(tokenizer, TRAIN)(features_of(tokenizer, table))
    loss = model(**batch).loss

    reference = SentenceTransformer(str(saved(model, tokenizer, tmp_path / "saved")), device="cpu").eval()
    columns = [[row[0] for row in rows], [row[1] for row in rows]]
    columns += [[row[2][place] for row in rows] for place in range(negatives)]
    expected = MultipleNegativesRankingLoss(reference, scale=20.0)(map(reference.preprocess, columns), torch.zeros(1))
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_known_positives_are_no_negatives() -> None:
    queries = torch.eye(3)
    documents = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0.5, 0, 0.5]])
    own, nothing = torch.arange(3), torch.zeros(3, 3, dtype=torch.bool)
    excluded = nothing.clone()
    excluded[2, 0] = excluded[2, 2] = True  # the own document is never left out

    loss = modeling.in_batch_loss(queries, documents, excluded, own, 1.0)

    def entropy(row: int, columns: list[int]) -> float:
        scores = (queries @ documents.T)[row, columns]
        return float(torch.logsumexp(scores, 0) - scores[-1])

    expected = (entropy(0, [1, 2, 0]) + entropy(1, [0, 2, 1]) + entropy(2, [1, 2])) / 3
    assert loss.item() == pytest.approx(expected)


def test_known_relevant_documents_are_no_negatives() -> None:
    same_query = torch.tensor([[True, False, True], [False, True, False], [True, False, True]])
    documents = torch.tensor([[1, 7], [2, 3], [4, 1]])
    relevant = torch.tensor([[1, 1], [2, 7], [4, 4]])

    excluded = modeling.no_negatives(same_query, documents, relevant)

    # columns: documents 1, 7, 2, 3, 4, and 1 again
    assert excluded.tolist() == [
        [True, False, False, False, True, True],  # 1 its own; 4 of the same query
        [False, True, True, False, False, True],  # 2 its own; 7 judged
        [True, False, False, False, True, True],
    ]


def test_a_pair_that_stands_there_twice_counts_once(base: Path, tokenizer: Any) -> None:
    model, _ = build(base)
    model.eval()
    collate = modeling.build_collator(tokenizer, TRAIN)
    once = pairs(("anna", TEXTS[0], []), ("home", TEXTS[1], []))
    twice = pairs(("anna", TEXTS[0], []), ("anna", TEXTS[0], []), ("home", TEXTS[1], []), ("home", TEXTS[1], []))

    losses = [model(**collate(features_of(tokenizer, table))).loss.item() for table in (once, twice)]

    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_a_missing_negative_is_filled_and_does_not_count(base: Path, tokenizer: Any) -> None:
    model, _ = build(base)
    model.eval()
    table = pairs(("anna", TEXTS[0], ["oslo", "the café"]), ("home", TEXTS[1], []))

    batch = modeling.build_collator(tokenizer, TRAIN)(features_of(tokenizer, table))

    assert batch["document_input_ids"].shape[:2] == (2, 3)
    assert batch["document_input_ids"][1].unique(dim=0).shape[0] == 1
    documents = model.embed(*(batch[f"document_{name}"].flatten(0, 1) for name in ("input_ids", "attention_mask")))
    similarity = model.embed(batch["input_ids"], batch["attention_mask"]) @ documents[:4].T * 20
    expected = torch.nn.functional.cross_entropy(similarity, torch.tensor([0, 3]))
    assert model(**batch).loss.item() == pytest.approx(expected.item(), rel=1e-5)


# --- the saved folder -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_other_libraries_load_it_and_embed_alike(base: Path, tokenizer: Any, tmp_path: Path, pooling: str) -> None:
    model, target = build(base, pooling=pooling, query_prefix="was ", document_prefix="the ")
    model.eval()
    folder = saved(model, tokenizer, tmp_path / "saved")

    loaded = SentenceTransformer(str(folder), device="cpu")
    chosen = settings(max_length=20, max_query_length=20, query_prefix="was ", document_prefix="the ", pooling=pooling)
    encoder = encoding.Encoder(AutoTokenizer.from_pretrained(folder), target, chosen)
    documents = pa.Table.from_pylist([document(text, text) for text in TEXTS], DOCUMENTS)
    asked = queries(*((text, None, None) for text in TEXTS))

    for table, expected in ((documents, loaded.encode_document(TEXTS)), (asked, loaded.encode_query(TEXTS))):
        encoded = Encoded(table, encoder.encode(table, np.arange(len(TEXTS))))
        forward = torch_forward(loading.load_model(folder))
        found = scoring.predict(encoded, {}, target, forward, tokenizer, EVALUATE)
        np.testing.assert_allclose(found["predictions"].to_pylist(), expected, atol=1e-5)
    with torch.inference_mode():
        trained = model.embed(
            **tokenizer(
                [f"the {text}" for text in TEXTS], padding=True, return_tensors="pt", return_token_type_ids=False
            )
        )
    np.testing.assert_allclose(trained, loaded.encode_document(TEXTS), atol=1e-5)
    assert loaded.max_seq_length == 20


def test_the_folder_is_that_of_the_encoder(base: Path, tokenizer: Any, tmp_path: Path) -> None:
    model, _ = build(base)

    folder = saved(model, tokenizer, tmp_path / "saved")

    weights, config = load_file(folder / "model.safetensors"), json.loads((folder / "config.json").read_text())
    assert config["architectures"] == ["BertModel"]
    encoder, found = AutoModel.from_pretrained(folder, output_loading_info=True)
    assert not found["missing_keys"] and not found["unexpected_keys"]
    assert all(torch.equal(tensor, weights[name]) for name, tensor in encoder.state_dict().items())
    assert list(loading.load_model(folder)(torch.ones(1, 4, dtype=torch.int64)).keys()) == ["last_hidden_state"]


def test_the_trainers_best_checkpoint_comes_back(base: Path, tokenizer: Any, tmp_path: Path) -> None:
    """A learning rate that ruins the model makes the first checkpoint the best one."""
    torch.manual_seed(0)
    model, target = build(base)
    rows = [(text.split()[0], text, ["a friend"]) for text in TEXTS[:4]]
    features = features_of(tokenizer, pairs(*rows))
    dataset = Dataset(features)
    kept: list[dict[str, torch.Tensor]] = []

    class Keeping(Trainer):
        def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
            kept.append({name: tensor.clone() for name, tensor in self.model.state_dict().items()})
            super()._save_checkpoint(*args, **kwargs)

    trainer = Keeping(
        model,
        TrainingArguments(
            str(tmp_path / "scratch"),
            learning_rate=3.0,
            num_train_epochs=2,
            per_device_train_batch_size=2,
            eval_strategy="epoch",
            save_strategy="epoch",
            save_only_model=True,
            load_best_model_at_end=True,
            metric_for_best_model="order",
            greater_is_better=False,
            use_cpu=True,
            disable_tqdm=True,
            report_to="none",
            dataloader_pin_memory=False,
        ),
        lambda rows: modeling.build_collator(tokenizer, TRAIN)(pa.Table.from_pylist(rows)),
        dataset,
        dataset,
        compute_metrics=lambda found: {"order": len(kept), **validation.validate(found.predictions, features, target)},
        preprocess_logits_for_metrics=modeling.reduce,
    )
    trainer.train()

    assert trainer.state.best_global_step == 2 and len(kept) == 2
    assert all(
        0 <= log["eval_mrr@10"] <= 1 and log["eval_loss"] > 0 for log in trainer.state.log_history if "eval_loss" in log
    )
    name = "encoder.layer.0.output.dense.weight"
    assert not torch.equal(kept[0][name], kept[1][name])
    assert all(torch.equal(tensor, kept[0][key]) for key, tensor in model.state_dict().items())
    model.save_pretrained(tmp_path / "trained")
    assert torch.equal(load_file(tmp_path / "trained/model.safetensors")[name], kept[0][name])


def test_no_gradient_reaches_a_pooler(base: Path) -> None:
    AutoModel.from_pretrained(base).save_pretrained(base)  # the base was a masked language model, without one

    model, _ = build(base)

    frozen = [name for name, parameter in model.named_parameters() if not parameter.requires_grad]
    assert frozen == ["encoder.pooler.dense.weight", "encoder.pooler.dense.bias"]


def test_a_checkpoint_without_all_of_its_encoder_is_refused(base: Path) -> None:
    weights = load_file(base / "model.safetensors")
    weights = {name: tensor for name, tensor in weights.items() if "layer.1" not in name}
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})

    with pytest.raises(UserError, match="16 weights of the encoder are not in .* such as encoder.layer.1"):
        build(base)


def test_a_model_with_a_decoder_is_refused(tmp_path: Path) -> None:
    from transformers import BartConfig, BartModel

    tiny = {"encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 1, "decoder_attention_heads": 1}
    sizes = {"d_model": 8, "encoder_ffn_dim": 8, "decoder_ffn_dim": 8, "vocab_size": 9, "max_position_embeddings": 9}
    BartModel(BartConfig(**tiny, **sizes)).save_pretrained(tmp_path)

    with pytest.raises(UserError, match="bart has a decoder; expected an encoder alone"):
        build(tmp_path)


def test_any_encoder_is_its_own_baseline(base: Path) -> None:
    assert scoring.base_is_baseline(base)


def test_validation_ranks_the_documents_of_all_queries(tokenizer: Any) -> None:
    table = queries(
        ("anna", [document("a", "anna"), document("b", "lee")], []),
        ("oslo", [document("c", "oslo")], []),
        ("paris", [document("c", "oslo")], []),
    )
    features = features_of(tokenizer, table)
    vectors = {"a": [1, 0, 0], "b": [0, 1, 0], "c": [0, 0, 1]}
    documents = np.array([vectors[name] for name in "abcc"], dtype=np.float16)
    asked = np.array([[0.1, 0.9, 0.5], [0.1, 0.9, 0.5], [0.9, 0.8, 0.7], [1, 1, 1]], dtype=np.float16)

    # b first; c third after a and b; c as near as the others, so third too.
    assert validation.validate((asked, documents), features, {}) == {"mrr@10": pytest.approx((1 + 1 / 3 + 1 / 3) / 3)}
    # The same query twice is one, to which both documents are right.
    twice = features_of(
        tokenizer, queries(("oslo", [document("a", "anna")], []), ("oslo", [document("c", "oslo")], []))
    )
    near_c = np.array([[0, 0, 1], [0, 0, 1]], dtype=np.float16)
    assert validation.validate((near_c, documents[[0, 2]]), twice, {}) == {"mrr@10": 1.0}
    order = [2, 3, 1, 0]  # as training sorts them by length
    assert validation.validate((asked[order], documents[order]), features.take(order), {}) == {
        "mrr@10": pytest.approx((1 + 1 / 3 + 1 / 3) / 3)
    }


def test_validation_drops_a_querys_own_document_as_search_does() -> None:
    # The second query's own document (7) is the first one's, and nearer than its relevant one (8).
    features = pa.table(
        {
            "example": [0, 1],
            "input_ids": [[1], [2]],
            "documents": pa.array([[7], [8]], pa.list_(pa.int64())),
            "relevant": pa.array([[7], [8, 7]], pa.list_(pa.int64())),
        }
    )
    asked, documents = np.array([[1.0, 0], [1, 0.5]]), np.array([[1.0, 0], [0, 1]])

    assert validation.validate((asked, documents), features, {}) == {"mrr@10": 1.0}
    unshared = features.set_column(3, "relevant", pa.array([[7], [8]], pa.list_(pa.int64())))
    assert validation.validate((asked, documents), unshared, {}) == {"mrr@10": 0.75}


# --- shorter vectors ------------------------------------------------------------------------------------------------


def test_the_loss_over_dimensions_is_matryoshkas(base: Path, tokenizer: Any, tmp_path: Path) -> None:
    model, _ = build(base, dimensions=[4, 16])
    model.eval()
    rows = [("anna", TEXTS[0]), ("home", TEXTS[1]), ("who left", TEXTS[2])]

    batch = modeling.build_collator(tokenizer, TRAIN)(features_of(tokenizer, pairs(*((q, d, []) for q, d in rows))))
    loss = model(**batch).loss

    reference = SentenceTransformer(str(saved(model, tokenizer, tmp_path / "saved")), device="cpu").eval()
    columns = [[row[0] for row in rows], [row[1] for row in rows]]
    plain = MultipleNegativesRankingLoss(reference, scale=20.0)
    expected = MatryoshkaLoss(reference, plain, [32, 16, 4])(list(map(reference.preprocess, columns)), torch.zeros(1))
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_dimensions_beyond_the_vector_are_refused(base: Path) -> None:
    with pytest.raises(UserError, match="tokenize.dimensions: 32, and vectors of .* have 32; expected fewer"):
        build(base, dimensions=[8, 32])


def test_the_saved_folder_says_which_beginnings_do(base: Path, tokenizer: Any, tmp_path: Path) -> None:
    model, _ = build(base, dimensions=[4, 16])
    folder = saved(model, tokenizer, tmp_path / "saved")

    assert json.loads((folder / "config.json").read_text())["matryoshka_dimensions"] == [4, 16, 32]
    again, _ = build(folder)  # whose training has no part in them
    assert "matryoshka" not in (saved(again, tokenizer, tmp_path / "again") / "config.json").read_text()


def test_sentence_transformers_truncates_dimensions_as_scored(base: Path, tokenizer: Any, tmp_path: Path) -> None:
    model, target = build(base, dimensions=[6])
    folder = saved(model.eval(), tokenizer, tmp_path / "saved")
    encoder = encoding.Encoder(tokenizer, target, settings(max_length=20, max_query_length=20))
    collection = pa.Table.from_pylist([document(text, text) for text in TEXTS], DOCUMENTS)
    asked = pairs(*((" ".join(text.split()[:2]), text, []) for text in TEXTS))
    encoded = [Encoded(table, encoder.encode(table, np.arange(len(table)))) for table in (asked, collection)]
    forward = torch_forward(loading.load_model(folder))

    found = scoring.predict(encoded[0], {"documents": encoded[1]}, target, forward, tokenizer, EVALUATE)

    loaded = SentenceTransformer(str(folder), device="cpu", truncate_dim=6)
    vectors = loaded.encode_query(asked["query"].to_pylist()), loaded.encode_document(TEXTS)
    order = loaded.similarity(*vectors).argsort(descending=True, stable=True).tolist()
    assert vectors[0].shape == (5, 6)
    assert found["ranked_6"].to_pylist() == [[TEXTS[row] for row in rows] for rows in order]


# --- large batches in parts -----------------------------------------------------------------------------------------

MANY = [
    ("anna lives in", "anna lives in paris .", ["oslo", "the café left"]),
    ("home", "nobody was at home .", ["paris"]),
    ("who left to oslo", "the train to oslo left", ["a friend", "quito"]),
    ("lee", "lee", []),
    ("quito", "quito is far from oslo ! quito is far", ["anna"]),
]


def without_dropout(model: PreTrainedModel) -> PreTrainedModel:
    model.train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return model


def gradients(model: PreTrainedModel, batch: dict[str, Any], micro_batch_size: int | None) -> dict[str, torch.Tensor]:
    """Return the loss and each weight's gradient of one pass, whose dropout is that of the seed 0."""
    model.micro_batch_size = micro_batch_size
    model.zero_grad()
    torch.manual_seed(0)
    loss = model(**batch).loss
    loss.backward()
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return found | {"loss": loss.detach()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys() and len(one) > 10
    for name, tensor in one.items():
        torch.testing.assert_close(tensor, other[name], rtol=1e-5, atol=1e-5, msg=name)


@pytest.mark.parametrize("dimensions", [None, [4, 16]])
@pytest.mark.parametrize("micro_batch_size", [1, 2, 4])
def test_a_batch_in_parts_has_the_gradients_of_one_pass(
    base: Path, tokenizer: Any, micro_batch_size: int, dimensions: list[int] | None
) -> None:
    model = without_dropout(build(base, dimensions=dimensions)[0])
    batch = modeling.build_collator(tokenizer, TRAIN)(features_of(tokenizer, pairs(*MANY)))

    same(gradients(model, batch, micro_batch_size), gradients(model, batch, None))


@pytest.mark.parametrize("faster", [False, True])
@pytest.mark.usefixtures("restored_torch")
def test_re_encoded_parts_repeat_the_first_dropout(
    base: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch, faster: bool
) -> None:
    model, _ = build(base)
    model.train()
    if faster:
        speed_up(model, compiles=False)
    batch = modeling.build_collator(tokenizer, TRAIN)(features_of(tokenizer, pairs(*MANY)))

    in_parts = gradients(model, batch, 2)

    assert in_parts["loss"] != gradients(model, batch, None)["loss"]  # whose dropout is drawn in another order
    with monkeypatch.context() as patch:  # the same parts, all kept in memory
        patch.setattr(modeling, "checkpoint", lambda embed, *part, **_: embed(*part))
        same(in_parts, gradients(model, batch, 2))


def test_no_more_than_a_part_is_in_memory(base: Path, tokenizer: Any) -> None:
    model, _ = build(base)
    model.train()
    batch = modeling.build_collator(tokenizer, TRAIN)(features_of(tokenizer, pairs(*MANY)))
    texts: list[int] = []
    model.encoder.register_forward_pre_hook(
        lambda encoder, args, inputs: texts.append(len(inputs["input_ids"])), with_kwargs=True
    )

    def kept(micro_batch_size: int | None) -> int:
        """Return the bytes that the backward pass would find in memory."""
        size = 0

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            nonlocal size
            size += tensor.nbytes * (tensor.grad_fn is not None)
            return tensor

        model.micro_batch_size = micro_batch_size
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = model(**batch).loss
        loss.backward()
        return size

    whole, in_parts = kept(None), kept(2)

    assert texts[:2] == [5, 15] and max(texts[2:]) == 2 * 3
    assert sum(texts[2:]) == 2 * 20  # once, and anew
    assert in_parts < whole / 10


@pytest.mark.usefixtures("restored_torch")
def test_validation_takes_its_batches_whole(base: Path, tokenizer: Any) -> None:
    model, _ = build(base)
    model.eval()
    batch = modeling.build_collator(tokenizer, TRAIN)(features_of(tokenizer, pairs(*MANY)))
    with torch.no_grad():
        whole = model(**batch)
        model.micro_batch_size = 1
        assert torch.equal(model(**batch).documents, whole.documents)


@pytest.mark.usefixtures("restored_torch")
def test_parts_go_with_what_averages_gradients_over_processes(base: Path, tokenizer: Any, tmp_path: Path) -> None:
    model = without_dropout(build(base)[0])
    batch = modeling.build_collator(tokenizer, TRAIN)(features_of(tokenizer, pairs(*MANY)))
    whole = gradients(model, batch, None)
    torch.distributed.init_process_group("gloo", f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    try:
        spread = torch.nn.parallel.DistributedDataParallel(model)
        model.zero_grad()
        model.micro_batch_size = 2
        spread(**batch).loss.backward()
    finally:
        torch.distributed.destroy_process_group()

    same({name: p.grad for name, p in model.named_parameters() if p.grad is not None} | {"loss": whole["loss"]}, whole)


@pytest.mark.usefixtures("restored_torch")
def test_parts_go_with_gradient_checkpoints_and_adapters(base: Path, tokenizer: Any) -> None:
    model = build(base)[0]
    adapters.add(model, Lora(rank=2, alpha=4.0, dropout=0.0, target_modules=None, keep=False, quantize=None))
    memory.checkpoint_gradients(without_dropout(model))
    batch = modeling.build_collator(tokenizer, TRAIN)(features_of(tokenizer, pairs(*MANY)))

    same(gradients(model, batch, 2), gradients(model, batch, None))
