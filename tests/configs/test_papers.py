"""Configs of the papers' models hold the papers' hyper-parameters, each told with where it stands."""

from pathlib import Path

import pytest

from vla_jax.train import load_config

CONFIGS = Path(__file__).resolve().parents[2] / "configs"

# LPOI, Table 6: 10,000 pairs once. DPO and mDPO were run "under a fair setting" with it (section 4.1).
LPOI_TABLE_6 = {
    "train.steps": 10_000 // 64,
    "train.batch_size": 64,
    "optimizer.name": "adamw",
    "optimizer.learning_rate": 1e-6,
    "optimizer.schedule": "linear",
    "lora.rank": 8,
    "lora.alpha": 8.0,
    "lora.dropout": 0.0,
}
# AdaViP, "Implementation details": all parameters, beta 0.1, LLaVA's own schedule.
ADAVIP = {
    "lora.rank": 0,
    "train.steps": 5_000,
    "options.adavip.beta": 0.1,
    "options.adavip.weighting": "adaptive",
    "optimizer.learning_rate": 5e-7,
    "optimizer.schedule": "cosine",
    "optimizer.warmup_ratio": 0.1,
}
# The alignment study, appendix A: rank and scale are fixed, the others lie on its grid.
STUDY = {"lora.rank": 128, "lora.alpha": 256.0, "lora.modules_to_save": "^projector/"}
STUDY_RL = {"lora.rank": 128, "lora.alpha": 256.0, "lora.modules_to_save": ""}
STUDY_GRID = {
    "optimizer.learning_rate": {1e-7, 5e-7, 1e-6, 5e-6},
    "optimizer.projector_learning_rate": {2e-5, 2e-6, 2e-7},
    "train.batch_size": {16, 32, 48},
}

PAPERS = {
    **{f"llava15_{size}_{name}": LPOI_TABLE_6 for size in ("7b", "13b") for name in ("dpo", "mdpo", "lpoi")},
    "llava15_7b_adavip": {**ADAVIP, "train.batch_size": 32},
    "llava15_13b_adavip": {**ADAVIP, "train.batch_size": 16},
    # FiSAO, section 4.1 and Table 7: 8,000 records once, four epochs a sample, all linear layers.
    "llava15_7b_fisao": {
        "data.source": "llava_instruct",
        "data.limit": 8_000,
        "train.steps": 8_000 // 32,
        "train.batch_size": 32,
        "lora.rank": 128,
        "lora.alpha": 256.0,
        "optimizer.learning_rate": 5e-7,
        "options.fisao.margin": 10.0,
        "options.fisao.divergence_weight": 0.2,
        "options.fisao.epochs": 4,
        "options.fisao.clip": 0.2,
    },
    # RLHF-V, section 4: changed words weigh 5 times, beta 0.5.
    "llava15_7b_rlhfv": {"options.rlhfv.beta": 0.5, "options.rlhfv.changed_weight": 5.0},
    **{f"llava16_7b_{name}": STUDY for name in ("dpo", "ipo", "slic", "povid", "online_dpo", "mixed_dpo")},
    # Appendix A: 2e-5, 4,000 steps of 32, constant after a warm-up of 3 %.
    "llava16_7b_reward_model": {
        **STUDY,
        "train.steps": 4_000,
        "train.batch_size": 32,
        "optimizer.learning_rate": 2e-5,
        "optimizer.schedule": "constant",
        "optimizer.warmup_ratio": 0.03,
    },
    # Appendix A: adapters alone; POVID's 17,000 prompts twice, and three times.
    "llava16_7b_rloo": {
        **STUDY_RL,
        "train.steps": 2 * 17_000 // 256 + 1,
        "train.batch_size": 256,
        "optimizer.learning_rate": 3e-4,
        "optimizer.max_grad_norm": 1.0,
    },
    "llava16_7b_ppo": {
        **STUDY_RL,
        "train.steps": 3 * 17_000 // 32 + 1,
        "train.batch_size": 32,
        "optimizer.learning_rate": 1.41e-5,
        "optimizer.schedule": "constant",
    },
}
GRIDS = {
    "llava16_7b_dpo": {**STUDY_GRID, "options.dpo.beta": {0.05, 0.1, 0.2, 0.5}},
    "llava16_7b_ipo": {**STUDY_GRID, "options.ipo.beta": {0.8, 0.9, 1.0}},
    "llava16_7b_slic": {**STUDY_GRID, "options.slic.beta": {0.02, 0.1, 0.2}},
    "llava16_7b_povid": STUDY_GRID,
    "llava16_7b_online_dpo": {**STUDY_GRID, "options.online_dpo.beta": {0.05, 0.1, 0.2, 0.5}},
    "llava16_7b_mixed_dpo": {**STUDY_GRID, "options.mixed_dpo.beta": {0.05, 0.1, 0.2, 0.5}},
}
# What a method's paper gives beside its training.
METHODS = {
    "llava15_7b_dpo": {"options.dpo.beta": 0.1},
    "llava15_7b_mdpo": {"options.mdpo.beta": 0.1},
    "llava15_7b_lpoi": {
        "options.lpoi.beta": 0.1,
        "options.lpoi.num_views": 5,
        "options.lpoi.visual_prompt": True,
        "options.lpoi.text_weight": 1.0,
        "options.lpoi.anchor_weight": 1.0,
        "options.lpoi.list_weight": 1.0,
        "options.lpoi.anchor_delta": 0.0,
    },
    "llava16_7b_povid": {"options.povid.gamma": 0.5, "options.povid.noise_step": 500},
    "llava16_7b_rloo": {
        "options.rloo.samples": 4,
        "options.rloo.temperature": 1.0,
        "options.rloo.beta": 0.4,
    },
    "llava16_7b_bdhs": {
        "options.bdhs.online": True,
        "options.bdhs.threshold": 0.99,
        "options.bdhs.tries": 5,
        "options.bdhs.similar": 0.97,
        "options.bdhs.gamma": 0.5,
    },
    "llava16_7b_mixed_dpo": {"options.mixed_dpo.probability": 0.5},
}


def value(config, field):
    for name in field.split("."):
        config = config[name]
    return config


def cases(table):
    return [(name, field, expected) for name, fields in table.items() for field, expected in fields.items()]


@pytest.fixture(scope="module")
def configs():
    return {name: load_config(CONFIGS / f"{name}.py") for name in {*PAPERS, *GRIDS, *METHODS}}


@pytest.mark.parametrize("name, field, expected", [*cases(PAPERS), *cases(METHODS)])
def test_a_config_says_what_its_paper_says(configs, name, field, expected):
    assert value(configs[name], field) == expected


@pytest.mark.parametrize("name, field, grid", cases(GRIDS))
def test_what_the_study_searched_for_lies_on_its_grid(configs, name, field, grid):
    assert value(configs[name], field) in grid


def test_every_config_of_a_papers_model_is_held_to_its_paper():
    shipped = {path.stem for path in CONFIGS.glob("llava*.py")}
    assert shipped == {*PAPERS, *GRIDS, *METHODS}
