//! Recipes: each way of being wrong is told apart.

use k2_train::Params;
use k2_train::Recipe;
use k2_train::export::{ExportFormat, export};
use k2_train::recipe::Overrides;
use std::path::Path;

const GOOD: &str = r#"
run = "runs/x"
[model]
vocab_size = 64
hidden_size = 32
intermediate_size = 32
moe_intermediate_size = 32
num_hidden_layers = 2
first_k_dense_replace = 1
num_attention_heads = 2
kv_lora_rank = 32
qk_nope_head_dim = 8
qk_rope_head_dim = 8
v_head_dim = 8
n_routed_experts = 4
n_shared_experts = 1
num_experts_per_tok = 2
routed_scaling_factor = 1.0
rms_norm_eps = 1e-6
rope_theta = 10000.0
max_position_embeddings = 128
[data]
tokenizer = "tokenizer"
sources = [{ kind = "lines" }]
[batch]
length = 64
sequences = 2
[schedule]
shape = "cosine"
steps = 10
peak_lr = 1e-3
final_lr = 0.0
warmup_steps = 2
[optimizer]
matrices = "adamw"
"#;

#[test]
fn wrong_recipes_are_refused_by_the_name_of_what_is_wrong() {
    let parse = |text: &str| Recipe::parse(text, Path::new("r.toml"), Overrides::default());
    let good = parse(GOOD).unwrap();
    assert_eq!((good.batch.accumulation, good.checkpoint.keep, good.optimizer.weight_decay), (1, 2, 0.1));
    assert_eq!(good.config().unwrap().q_lora_rank, None);
    for (from, to, message) in [
        ("run =", "runn =", "unknown field `runn`"),
        ("sequences = 2", "sequences = 2\nsequence = 3", "unknown field `sequence`"),
        ("kind = \"lines\"", "kind = \"line\"", "unknown variant `line`"),
        ("steps = 10", "steps = 0", "`schedule.steps` is 0, expected 1 to"),
        ("length = 64", "length = 500", "`batch.length` is 500, expected 1 to 128"),
        ("warmup_steps = 2", "warmup_steps = 11", "`schedule.warmup_steps + decay_steps` is 11"),
        (
            "warmup_steps = 2",
            "warmup_steps = 10",
            "`schedule.warmup_steps` is 10, expected less than the 10 steps, or `final_lr` is never reached",
        ),
        (
            "warmup_steps = 2",
            "warmup_steps = 2\ndecay_steps = 3",
            "`schedule.decay_steps` is 3, expected 0: `cosine` decays from the end of the warm-up on",
        ),
        ("\"cosine\"", "\"wsd\"", "`schedule.decay_steps` is 0, expected at least 1, or `final_lr` is never"),
        ("peak_lr = 1e-3", "peak_lr = nan", "`schedule.peak_lr` is NaN"),
        ("\"adamw\"", "\"sgd\"", "unknown variant `sgd`"),
        ("rope_theta = 10000.0", "", "`rope_theta` is missing"),
        ("n_shared_experts = 1", "n_share_experts = 1", "[model]: unknown field `n_share_experts`"),
        ("kv_lora_rank = 32", "kv_lora_rank = 32\nq_lora_rnk = 8", "[model]: unknown field `q_lora_rnk`"),
        ("run =", "init_layers = [0, 1]\nrun =", "`init_layers` is [0, 1], expected nothing without `init`"),
        (
            "run =",
            "init_mean_with = [\"a\"]\nrun =",
            "`init_mean_with` is [\"a\"], expected nothing without `init`",
        ),
        ("[optimizer]", "[optimizer]\nqk_clip_tau = -1.0", "`optimizer.qk_clip_tau` is -1"),
    ] {
        let error = parse(&GOOD.replace(from, to)).unwrap_err().to_string();
        assert!(error.contains(message), "{to}: {error}");
    }
}

#[test]
fn lines_change_a_recipe_key_by_key() {
    let parse = |lines: &[&str]| {
        let set = lines.iter().map(|line| (*line).to_owned()).collect();
        Recipe::parse(GOOD, Path::new("r.toml"), Overrides { set, ..Overrides::default() })
    };
    let recipe = parse(&["optimizer.matrices=\"muon\"", "schedule.steps = 20", "optimizer.qk_clip_tau=5.0"]);
    let recipe = recipe.unwrap();
    assert_eq!((recipe.schedule.steps, recipe.schedule.warmup_steps), (20, 2));
    assert_eq!(recipe.optimizer.qk_clip_tau, Some(5.0));
    parse(&["model.initializer_range=0.02", "init_std=0.02", "model.q_lora_rank=8", "model.pad_token_id=1"])
        .unwrap();
    parse(&["model.aux_loss_alpha=1e-4", "balance.sequence_loss=1e-4", "model.seq_aux=true"]).unwrap();
    // Nothing of a dense model becomes INT4.
    parse(&["quantization.last_steps=2\nmodel.hidden_size=48\nmodel.first_k_dense_replace=2"]).unwrap();
    for (line, message) in [
        ("optimizer.matrices=muon", "is not KEY=VALUE in TOML, where a text needs quotes"),
        ("schedule.stepz=20", "unknown field `stepz`"),
        ("schedule.steps=0", "`schedule.steps` is 0, expected 1 to"),
        ("optimizer.qk_clip_tau=nan", "`optimizer.qk_clip_tau` is NaN"),
        ("optimizer.adamw.eps=0.0", "`optimizer.adamw.eps` is 0, expected 0.0000000000000001 to 1"),
        ("optimizer.adamw.eps=nan", "`optimizer.adamw.eps` is NaN"),
        ("optimizer.muon.update_rms=inf", "`optimizer.muon.update_rms` is inf, expected 0 to 100"),
        ("optimizer.max_gradient_norm=inf", "`optimizer.max_gradient_norm` is inf"),
        ("model.aux_loss_alpha=0.001", "`model.aux_loss_alpha` is 0.001, expected that of `balance.seq"),
        ("model.initializer_range=0.02", "`model.initializer_range` is 0.02, expected that of `init_std`"),
        ("model.attention_dropout=0.1", "`model.attention_dropout` is 0.1, expected 0"),
        ("model.seq_aux=false", "`model.seq_aux` is false, expected true"),
        ("model.num_nextn_predict_layers=1", "`model.num_nextn_predict_layers` is 1, expected 0"),
        ("model.rope_scalling={ type = \"yarn\" }", "unknown field `rope_scalling`, expected those of a"),
        (
            "quantization.last_steps=2\nmodel.hidden_size=48",
            "`model.hidden_size` is 48, expected a multiple of 32",
        ),
        (
            "quantization.last_steps=2\nmodel.moe_intermediate_size=40",
            "`model.moe_intermediate_size` is 40, expected a multiple of 32",
        ),
    ] {
        let error = parse(&[line]).unwrap_err().to_string();
        assert!(error.contains(message), "{line}: {error}");
    }
}

#[test]
fn a_rate_that_stays_where_it_is_needs_no_decay() {
    let text = GOOD.replace("\"cosine\"", "\"wsd\"").replace("final_lr = 0.0", "final_lr = 1e-3");
    let schedule = Recipe::parse(&text, Path::new("r.toml"), Overrides::default()).unwrap().schedule;
    assert_eq!((schedule.lr(2), schedule.lr(9)), (1e-3, 1e-3));
}

/// What stands in the repository is read: `init` and the data are looked at by the run.
#[test]
fn our_own_recipes_are_right() {
    let recipes = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../recipes");
    for name in ["micro.toml", "study.toml", "tiny.toml"] {
        let path = recipes.join(name);
        // A recipe that says how deeper layers begin needs the model that it begins with.
        let overrides = Overrides { init: Some("before".into()), ..Overrides::default() };
        assert!(Recipe::read(&path, overrides).is_ok(), "{name}");
    }
}

/// Fine-tuning: the model is that of the checkpoint to begin with, however its weights are stored.
#[test]
fn a_recipe_without_a_model_takes_that_of_its_init() {
    let whole = Recipe::parse(GOOD, Path::new("r.toml"), Overrides::default()).unwrap();
    let model = Path::new(env!("CARGO_TARGET_TMPDIR")).join("init");
    let params = Params::random(&whole.config().unwrap(), 1, None);
    export(&params, &whole.config_json(), ExportFormat::Int4, &model).unwrap();

    let (before, rest) = GOOD.split_once("[model]").unwrap();
    let (_, data) = rest.split_once("[data]").unwrap();
    let text = format!("{before}[data]{data}");
    let parse = |overrides| Recipe::parse(&text, Path::new("r.toml"), overrides);
    let error = parse(Overrides::default()).unwrap_err().to_string();
    assert!(error.contains("is missing"), "{error}");

    let given =
        Overrides { init: Some(model.clone()), run: Some("elsewhere".into()), threads: Some(3), set: vec![] };
    let found = parse(given).unwrap();
    assert_eq!(found.config_json(), whole.config_json());
    assert_eq!((found.init, found.run.to_str(), found.threads), (Some(model), Some("elsewhere"), 3));

    // What an official config says of the training before is no order to this one.
    let mut official = whole.config_json();
    official["aux_loss_alpha"] = 0.001.into();
    official["seq_aux"] = true.into();
    official["initializer_range"] = 0.02.into();
    let model = Path::new(env!("CARGO_TARGET_TMPDIR")).join("init-official");
    export(&params, &official, ExportFormat::Bf16, &model).unwrap();
    let found = parse(Overrides { init: Some(model), ..Overrides::default() }).unwrap();
    assert_eq!(found.config_json(), official);
}
