"""Texts to blocks on Ray: one node with one CPU beside two nodes with one each, all on this machine.

python -m benchmarks.encode_ray [WORDS]    (texts are drawn by benchmarks/scale_corpora.py; the model is its tiny BERT)
"""

import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import keep, scale_corpora
from finetrail.encoding.engines import ordered_map
from finetrail.tasks.masked_lm import encoding
from finetrail.tasks.masked_lm.settings import Tokenize
from stages import tokenize

WORDS = 2_000_000
ROUNDS = 4
NODE: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 200 << 20}
SETTINGS = Tokenize(
    block_size=64, join_documents=True, remainder="drop", mask_probability=0.15, whole_word=False, mask_seed=0,
    limit=None, engine="ray", num_proc=1,
)  # fmt: skip


def encoded(folder: Path, engine: str, num_proc: int) -> dict[str, Any]:
    """Encode the texts in so many tasks at a time, several times; return the shortest seconds, and the features."""
    tokenizer = encoding.load_tokenizer(folder / "base", SETTINGS, lambda: iter(()))
    encoder = encoding.Encoder(tokenizer, None, SETTINGS)
    source, target = (folder / "texts.parquet").absolute(), folder / f"{engine}-{num_proc}.arrow"
    with ordered_map(engine, num_proc) as mapped:
        taken = []
        for _ in range(ROUNDS + 1):  # the first one starts processes, and loads the function
            started = time.perf_counter()
            batches = tokenize.Batches(source, None, tokenize.EXAMPLES_A_BATCH)
            tokenize.write(encoder.encode_table("train", batches, mapped), encoding.FEATURES, target, 0)
            taken.append(time.perf_counter() - started)
    return {"seconds": min(taken[1:]), "features": target.read_bytes()}


def on_nodes(folder: Path, nodes: int) -> dict[str, Any]:
    """Encode on a cluster of so many nodes, with a CPU each."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args=NODE | {"include_dashboard": False})
    try:
        for _ in range(nodes - 1):
            cluster.add_node(**NODE)
        os.environ["RAY_ADDRESS"] = cluster.address
        return encoded(folder, "ray", nodes)
    finally:
        cluster.shutdown()


def main(words: int) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        scale_corpora.model(folder / "base")
        texts = [" ".join(text) for text in scale_corpora.Words(0).texts(words // 50, 50)]
        words = sum(text.count(" ") + 1 for text in texts)
        table = pa.table({"id": [str(number) for number in range(len(texts))], "text": texts})
        pq.write_table(table, folder / "texts.parquet", row_group_size=10_000)
        found = {"local process": encoded(folder, "local", 1)}
        found |= {f"Ray, {nodes} node{'s' * (nodes > 1)}": on_nodes(folder, nodes) for nodes in (1, 2)}
    keep(
        "encode_ray",
        {
            "words": words,
            "identical_features": len({of_one["features"] for of_one in found.values()}) == 1,
            "words_per_second": {who: round(words / of_one["seconds"]) for who, of_one in found.items()},
            "speedup_of_2_nodes": round(found["Ray, 1 node"]["seconds"] / found["Ray, 2 nodes"]["seconds"], 2),
            "load_average_of_the_2_cores": round(os.getloadavg()[0], 1),
        },
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else WORDS)
