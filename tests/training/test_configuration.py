"""Configurations refuse what would be ignored, and say in what they differ."""

import pytest

from vla_jax.training.configuration import check, default_config, differences, fingerprint, plain


@pytest.mark.smoke
def test_the_default_configuration_is_valid():
    check(default_config())


def test_an_unknown_recipe_is_refused_with_the_choice():
    config = default_config()
    config.recipe = "nonsense"
    with pytest.raises(ValueError, match="no recipe 'nonsense'; choose one of .*dpo"):
        check(config)


def test_an_option_of_another_recipe_is_refused_not_ignored():
    config = default_config()
    config.recipe = "dpo"
    config.options.lpoi.num_views = 3
    with pytest.raises(ValueError, match="options.lpoi.num_views is set, but the recipe is 'dpo'"):
        check(config)


@pytest.mark.parametrize(
    "section, field", [("train", "steps"), ("train", "batch_size"), ("checkpoint", "every")]
)
def test_counts_below_one_are_refused_by_name(section, field):
    config = default_config()
    config[section][field] = 0
    with pytest.raises(ValueError, match=f"{section}.{field} is 0"):
        check(config)


def test_microbatches_must_divide_the_batch_unless_it_fits_in_one():
    config = default_config()
    config.train.batch_size, config.train.microbatch_size = 4, 8
    check(config)
    config.train.batch_size = 12
    with pytest.raises(ValueError, match="train.microbatch_size is 8; it must divide train.batch_size"):
        check(config)


def test_an_unknown_key_is_an_error():
    with pytest.raises((KeyError, AttributeError)):
        default_config().train.stepz = 3


def test_differences_name_every_field_with_both_values():
    old, new = default_config(), default_config()
    new.train.steps, new.options.dpo.beta = 7, 0.5
    assert differences(plain(old), plain(new)) == ["options.dpo.beta: 0.1 -> 0.5", "train.steps: 1000 -> 7"]
    assert fingerprint(old) != fingerprint(new)
    assert fingerprint(old) == fingerprint(default_config())


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"data.path": "x.jsonl"}, "data.path is set, but data.source=world_supervised"),
        ({"data.box_format": "xywh_pixels"}, "data.box_format is set"),
        ({"data.flip_labels": True}, "data.flip_labels is set"),
        ({"data.source": "preference_folder", "data.size": 3}, "data.size is set"),
        ({"data.limit": 3}, "data.limit is set, but data.source=world_supervised"),
        ({"data.source": "mixture", "data.limit": 3}, "data.limit is set, but data.source=mixture"),
        (
            {"data.source": "trl", "data.limit": -3},
            "data.limit is -3; give a number of records, or 0 for all",
        ),
        ({"lora.alpha": 2.0}, "lora.alpha is set, but lora.rank=0"),
        ({"lora.targets": "q_proj"}, "lora.targets is set"),
        ({"lora.rank": 4, "train.frozen": "^vision/"}, "train.frozen is set"),
        ({"optimizer.matrix_learning_rate": 0.5}, "optimizer.matrix_learning_rate is set"),
        ({"base.model": "DIR", "model.feature_layer": -2}, "model is set, but the shape of base.model"),
        ({"lora.rank": 4, "optimizer.name": "muon"}, "take adamw for an adapter"),
    ],
)
def test_a_field_that_the_others_leave_unread_is_refused_not_ignored(settings, message):
    config = default_config()
    config.update_from_flattened_dict(settings)
    with pytest.raises(ValueError, match=message):
        check(config)


@pytest.mark.parametrize(
    "field, value, message",
    [
        ("optimizer.schedule", "cosin", "choose one of constant, linear, cosine"),
        ("optimizer.name", "adam", "choose one of adamw, adafactor, muon"),
    ],
)
def test_a_wrong_choice_is_refused_before_anything_is_built(field, value, message):
    config = default_config()
    section, name = field.split(".")
    config[section][name] = value
    with pytest.raises(ValueError, match=message):
        check(config)
