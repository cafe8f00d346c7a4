//! Errors that come from the file system, from the size of things, or from what the caller asks for.

use k2_weights::safetensors::Dtype;
use k2_weights::{Checkpoint, WeightsError, read_config, save_safetensors};
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use crate::malformed::name_of;
use crate::{data, open};

/// What is tried, in a fresh folder; the error that must come.
type Situation = fn(&Path) -> Result<(), WeightsError>;

/// Every situation, with the variant that it must give.
pub(crate) fn all() -> Vec<(&'static str, Situation)> {
    vec![
        ("Io", |folder| read_config(&folder.join("nothing")).map(drop)),
        ("Io", |folder| save(&folder.join("no/such/folder.safetensors"), &[4])),
        ("NotAFile", |folder| {
            fs::create_dir(folder.join("model.gguf")).unwrap();
            fs::write(folder.join("model.gguf/config.json"), "{}").unwrap();
            fs::create_dir(folder.join("model.gguf/model.safetensors")).unwrap();
            open_at(&folder.join("model.gguf"))
        }),
        ("TooLarge", |folder| {
            let file = File::create(folder.join("config.json")).unwrap();
            file.set_len(1 << 40).unwrap();
            read_config(folder).map(drop)
        }),
        ("TooLarge", |folder| {
            fs::write(folder.join("config.json"), "{}").unwrap();
            let index = File::create(folder.join("model.safetensors.index.json")).unwrap();
            index.set_len(1 << 40).unwrap();
            open_at(folder)
        }),
        // The second shard, which is none, is not what is complained of: the first is checked before it is kept.
        ("Index/Unlisted", |folder| {
            fs::write(folder.join("config.json"), "{}").unwrap();
            fs::write(
                folder.join("model.safetensors.index.json"),
                r#"{"weight_map": {"c": "1.safetensors", "b": "2.safetensors"}}"#,
            )
            .unwrap();
            save(&folder.join("1.safetensors"), &[4])?;
            fs::write(folder.join("2.safetensors"), "none").unwrap();
            open_at(folder)
        }),
        ("NoCheckpoint", open_at),
        ("NoCheckpoint", |folder| {
            fs::write(folder.join("notes.txt"), "").unwrap();
            open_at(&folder.join("notes.txt"))
        }),
        ("MissingTensor", |_| open(&data("tiny")).matrix("model.layers.9.x.weight", 1, 1).map(drop)),
        ("MissingTensor", |_| open(&data("gguf/tiny.q8_0.gguf")).vector("x", 1).map(drop)),
        ("Shape", |_| open(&data("tiny")).matrix("lm_head.weight", 32, 64).map(drop)),
        ("Shape", |_| open(&data("tiny")).vector("model.norm.weight", 31).map(drop)),
        ("Shape", |_| open(&data("tiny")).vector("lm_head.weight", 2048).map(drop)),
        ("Safetensors/ReservedName", |folder| {
            save_safetensors(&folder.join("x"), &[("__metadata__", Dtype::U8, &[1], &[0])])
        }),
        ("Safetensors/Duplicate", |folder| {
            save_safetensors(&folder.join("x"), &[("a", Dtype::U8, &[1], &[0]), ("a", Dtype::U8, &[1], &[0])])
        }),
        ("Safetensors/Length", |folder| save(&folder.join("x"), &[5])),
        ("Safetensors/Size", |folder| save(&folder.join("x"), &[usize::MAX, 9])),
        #[cfg(unix)]
        ("NotAFile", |folder| {
            // Opening a socket or a pipe would fail or wait for ever.
            let _socket = std::os::unix::net::UnixListener::bind(folder.join("config.json")).unwrap();
            read_config(&folder.join("config.json")).map(drop)
        }),
        #[cfg(unix)]
        ("Outside", |folder| {
            let secret = folder.join("secret.safetensors");
            fs::copy(data("tiny/model.safetensors"), &secret).unwrap();
            indexed(&folder.join("model"), &secret)
        }),
        #[cfg(unix)]
        ("Outside", |folder| {
            // A cache's way out leads to its blobs and nowhere else.
            let secret = folder.join("cache/secret.safetensors");
            fs::create_dir_all(folder.join("cache/snapshots")).unwrap();
            fs::copy(data("tiny/model.safetensors"), &secret).unwrap();
            indexed(&folder.join("cache/snapshots/1"), &secret)
        }),
    ]
}

#[test]
fn every_situation_gives_its_error() {
    for (i, (variant, situation)) in all().into_iter().enumerate() {
        let folder = fresh(&format!("situation-{i}"));
        let error = situation(&folder).expect_err(variant);
        assert_eq!(name_of(&error), variant, "situation {i}: {error}");
        fs::remove_dir_all(folder).unwrap();
    }
}

#[cfg(unix)]
#[test]
fn a_checkpoint_in_memory_is_that_of_the_folder() {
    let read = |name| fs::read(data("tiny").join(name)).unwrap();
    let (config, weights) = (read("config.json"), read("model.safetensors"));
    let found = Checkpoint::from_bytes("embedded", &config, weights.clone()).unwrap();
    let wanted = open(&data("tiny"));
    assert_eq!(found.config(), wanted.config());
    assert!(
        found
            .tensors()
            .map(|t| (t.name, t.format, t.bytes))
            .eq(wanted.tensors().map(|t| (t.name, t.format, t.bytes)))
    );
    let norm = |checkpoint: &Checkpoint| checkpoint.vector("model.norm.weight", 32).unwrap();
    assert_eq!(norm(&found), norm(&wanted));
    let cut = weights[..weights.len() - 1].to_vec();
    let error = Checkpoint::from_bytes("embedded", &config, cut).unwrap_err();
    assert!(error.to_string().contains("embedded/model.safetensors"), "{error}");
}

#[test]
fn links_inside_the_folder_and_into_a_cache_are_followed() {
    let folder = fresh("links");
    fs::create_dir_all(folder.join("plain")).unwrap();
    fs::copy(data("tiny/model.safetensors"), folder.join("plain/real.bin")).unwrap();
    indexed(&folder.join("plain"), &folder.join("plain/real.bin")).unwrap();

    fs::create_dir_all(folder.join("cache/snapshots")).unwrap();
    fs::create_dir_all(folder.join("cache/blobs")).unwrap();
    fs::copy(data("tiny/model.safetensors"), folder.join("cache/blobs/0123abcd")).unwrap();
    indexed(&folder.join("cache/snapshots/1"), Path::new("../../blobs/0123abcd")).unwrap();
    fs::remove_dir_all(folder).unwrap();
}

/// Opens a folder whose index names one shard, a link to `target`, which is a copy of the tiny model.
#[cfg(unix)]
fn indexed(folder: &Path, target: &Path) -> Result<(), WeightsError> {
    let tiny = open(&data("tiny"));
    let names: serde_json::Map<_, _> =
        tiny.tensors().map(|entry| (entry.name.to_owned(), "shard.safetensors".into())).collect();
    fs::create_dir_all(folder).unwrap();
    fs::copy(data("tiny/config.json"), folder.join("config.json")).unwrap();
    let index = serde_json::json!({ "weight_map": names }).to_string();
    fs::write(folder.join("model.safetensors.index.json"), index).unwrap();
    std::os::unix::fs::symlink(target, folder.join("shard.safetensors")).unwrap();
    open_at(folder)
}

fn open_at(path: &Path) -> Result<(), WeightsError> {
    Checkpoint::open(path, &mut |_| ()).map(drop)
}

fn save(path: &Path, shape: &[usize]) -> Result<(), WeightsError> {
    save_safetensors(path, &[("a", Dtype::U8, shape, &[0; 4])])
}

/// An empty folder of that name.
pub(crate) fn fresh(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("weights").join(name);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    folder
}
