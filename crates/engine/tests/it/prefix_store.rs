//! Beginnings of sequences on disk: found after a restart, of use to the right model alone, and whatever is
//! wrong with them is a miss; answers are always those of an engine without a store.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use k2_engine::{CacheDtype, Engine, EngineOptions, PrefixStoreOptions, StartError};

use crate::fixtures::{Answer, answer, bf16, greedy, ids, load};

const ANSWER: usize = 40;

/// A new directory for one test; gone at its end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        let path = std::env::temp_dir().join(format!("k2-prefix-store-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        Scratch(path)
    }

    /// The files of blocks, the oldest first: in the order of their sequence.
    fn blocks(&self) -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir(&self.0) else { return Vec::new() };
        let mut blocks: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
        blocks.retain(|path| path.extension().is_some_and(|extension| extension == "block"));
        blocks.sort_by_key(|path| std::cmp::Reverse(path.metadata().unwrap().modified().unwrap()));
        blocks
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn options(cache_dtype: CacheDtype) -> EngineOptions {
    EngineOptions { context_tokens: 640, prefill_chunk: 50, cache_dtype, ..EngineOptions::default() }
}

fn store(directory: &Scratch) -> PrefixStoreOptions {
    PrefixStoreOptions { directory: directory.0.clone(), bytes: 1 << 30, weights: [7; 32] }
}

fn start(folder: &Path, dtype: CacheDtype, store: Option<&PrefixStoreOptions>) -> Engine {
    Engine::start_with(load(folder), options(dtype), store).unwrap()
}

/// One request, and all of its blocks on the disk.
fn ask(engine: &Engine, prompt: &[u32]) -> Answer {
    let answer = answer(engine.submit(greedy(prompt, ANSWER)).unwrap()).0;
    assert!(engine.flush(Duration::from_secs(60)), "the writer hangs");
    answer
}

fn prompt(folder: &Path, tokens: usize) -> Vec<u32> {
    ids(folder, "input_ids").into_iter().cycle().take(tokens).collect()
}

#[test]
fn a_restart_finds_what_was_written() {
    let folder = bf16();
    let prompt = prompt(&folder, 200);
    let mut changed = prompt.clone();
    changed[70] = (changed[70] + 1) % 100;
    for dtype in [CacheDtype::F32, CacheDtype::I16, CacheDtype::Bf16, CacheDtype::Q8] {
        let directory = Scratch::new(&format!("restart-{dtype}"));
        let without = start(&folder, dtype, None);
        let first = ask(&start(&folder, dtype, Some(&store(&directory))), &prompt);
        assert_eq!(first.usage.num_cached_tokens, 0);
        // The answer's last token is not computed: 239 tokens.
        assert_eq!(directory.blocks().len(), 239 / 32);
        let longer = [&prompt[..], &first.ids].concat();
        for (prompt, cached) in [(&prompt[..], 192), (&changed, 64), (&longer, 224), (&prompt[..32], 0)] {
            let found = ask(&start(&folder, dtype, Some(&store(&directory))), prompt);
            assert_eq!(found.ids, ask(&without, prompt).ids, "{dtype}: {} tokens", prompt.len());
            assert_eq!(found.usage.num_cached_tokens, cached, "{dtype}: {} tokens", prompt.len());
        }
    }
}

#[test]
fn another_model_or_format_finds_nothing() {
    let folder = bf16();
    let (directory, prompt) = (Scratch::new("other"), prompt(&folder, 100));
    ask(&start(&folder, CacheDtype::F32, Some(&store(&directory))), &prompt);
    let cached = |dtype, store: &PrefixStoreOptions| {
        ask(&start(&folder, dtype, Some(store)), &prompt).usage.num_cached_tokens
    };
    assert_eq!(cached(CacheDtype::Bf16, &store(&directory)), 0);
    assert_eq!(cached(CacheDtype::F32, &PrefixStoreOptions { weights: [8; 32], ..store(&directory) }), 0);
    assert_eq!(cached(CacheDtype::F32, &store(&directory)), 96);
}

/// Two engines at once, in two processes for all they know.
#[test]
fn engines_share_a_directory() {
    let folder = bf16();
    let (directory, prompt) = (Scratch::new("share"), prompt(&folder, 200));
    let engines = [(); 2].map(|()| start(&folder, CacheDtype::F32, Some(&store(&directory))));
    let first = ask(&engines[0], &prompt);
    let second = ask(&engines[1], &prompt);
    assert_eq!((first.ids, second.usage.num_cached_tokens), (second.ids, 192));
}

/// What comes from the disk has to leave the cache again, comes back, and changes nothing.
#[test]
fn sequences_that_leave_the_cache_come_back_from_the_disk() {
    let folder = bf16();
    let directory = Scratch::new("leave");
    let tight = EngineOptions { context_tokens: 320, cache_tokens: 320, ..options(CacheDtype::Bf16) };
    let engine = Engine::start_with(load(&folder), tight, Some(&store(&directory))).unwrap();
    let without = start(&folder, CacheDtype::Bf16, None);
    let prompts: Vec<Vec<u32>> = (0..6).map(|n| prompt(&folder, 230).split_off(n * 5)).collect();
    for _ in 0..2 {
        let asked: Vec<_> =
            prompts.iter().map(|prompt| engine.submit(greedy(prompt, ANSWER)).unwrap()).collect();
        for (prompt, events) in prompts.iter().zip(asked) {
            assert_eq!(answer(events).0.ids, ask(&without, prompt).ids);
        }
    }
}

/// The third of six blocks is not what it should be: the two before it count, and it is written anew.
#[test]
fn a_file_that_is_wrong_is_a_miss_and_is_removed() {
    let folder = bf16();
    let (directory, prompt) = (Scratch::new("wrong"), prompt(&folder, 200));
    let wanted = ask(&start(&folder, CacheDtype::F32, Some(&store(&directory))), &prompt).ids;
    let third = directory.blocks()[2].clone();
    let good = fs::read(&third).unwrap();
    let damage: [(&str, &dyn Fn()); 6] = [
        ("missing", &|| fs::remove_file(&third).unwrap()),
        ("empty", &|| fs::write(&third, "").unwrap()),
        ("short", &|| fs::write(&third, &good[..good.len() / 2]).unwrap()),
        ("long", &|| fs::write(&third, [&good[..], b"!"].concat()).unwrap()),
        ("flipped", &|| {
            let mut bytes = good.clone();
            bytes[1000] ^= 1;
            fs::write(&third, bytes).unwrap();
        }),
        ("another block", &|| {
            fs::copy(&directory.blocks()[0], &third).unwrap();
        }),
    ];
    for (what, damage) in damage {
        damage();
        let engine = start(&folder, CacheDtype::F32, Some(&store(&directory)));
        let found = ask(&engine, &prompt);
        assert_eq!((&found.ids, found.usage.num_cached_tokens), (&wanted, 64), "{what}");
        assert!(fs::read(&third).unwrap() == good, "{what}: the block is back");
    }
}

#[test]
fn a_budget_is_kept() {
    let folder = bf16();
    let directory = Scratch::new("budget");
    let block = {
        ask(&start(&folder, CacheDtype::F32, Some(&store(&directory))), &prompt(&folder, 40));
        directory.blocks()[0].metadata().unwrap().len()
    };
    let small = PrefixStoreOptions { bytes: 5 * block, ..store(&directory) };
    let (engine, without) =
        (start(&folder, CacheDtype::F32, Some(&small)), start(&folder, CacheDtype::F32, None));
    for skipped in 0..6 {
        let prompt = prompt(&folder, 200).split_off(skipped);
        assert_eq!(ask(&engine, &prompt).ids, ask(&without, &prompt).ids);
        assert!(directory.blocks().len() <= 5, "{} blocks", directory.blocks().len());
    }
    let nothing = PrefixStoreOptions { bytes: 0, ..store(&directory) };
    ask(&start(&folder, CacheDtype::F32, Some(&nothing)), &prompt(&folder, 64));
    assert!(directory.blocks().len() <= 5);
}

/// The disk fails while the engine runs: nobody notices but the log.
#[test]
fn a_directory_that_goes_away_costs_no_answer() {
    let folder = bf16();
    let (directory, prompt) = (Scratch::new("gone"), prompt(&folder, 200));
    let engine = start(&folder, CacheDtype::F32, Some(&store(&directory)));
    let wanted = ask(&start(&folder, CacheDtype::F32, None), &prompt).ids;
    fs::remove_dir_all(&directory.0).unwrap();
    for _ in 0..2 {
        assert_eq!(ask(&engine, &prompt).ids, wanted);
    }
    assert!(directory.blocks().is_empty());
}

#[test]
fn what_is_no_directory_is_refused_at_the_start() {
    let directory = Scratch::new("file");
    fs::write(&directory.0, "a file").unwrap();
    let error =
        Engine::start_with(load(&bf16()), options(CacheDtype::F32), Some(&store(&directory))).unwrap_err();
    assert!(matches!(error, StartError::PrefixStore(_)), "{error}");
    assert!(error.to_string().starts_with("the prefix store "), "{error}");
    fs::remove_file(&directory.0).unwrap();
}
