//! What grammars cost: building the compiler, compiling, and the masks of an answer, token by token.
//!
//!     cargo run --release -p k2-chat --example mask_speed -- TOKENIZER_DIR [SCHEMA_FILE]
//!
//! The schema (default: one of its own) is that of a required tool; the answer takes allowed tokens at random and
//! closes what it opened after a while. Prints milliseconds.

use std::error::Error;
use std::path::Path;
use std::time::Instant;

use k2_chat::grammar::{Calls, ContentForm, GrammarCompiler, Reasoning, Wanted, may_come};
use k2_chat::{Tokenizer, Tool};

const SCHEMA: &str = r#"{"type":"object","properties":{
    "city":{"type":"string"},"unit":{"type":"string","enum":["celsius","kelvin"]},"days":{"type":"integer"},
    "tags":{"type":"array","items":{"type":"string","maxLength":40}},
    "options":{"type":"object","additionalProperties":{"type":"number"}}},
    "required":["city","days","tags","options"]}"#;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let dir = arguments.next().ok_or("usage: mask_speed TOKENIZER_DIR [SCHEMA_FILE]")?;
    let schema = arguments.next().map_or(Ok(SCHEMA.to_owned()), std::fs::read_to_string)?;
    let tokenizer = Tokenizer::from_dir(Path::new(&dir))?;
    let stop_ids = tokenizer.stop_ids(&[]);
    let (build, compiler) = timed(|| GrammarCompiler::new(&tokenizer, &stop_ids));
    let compiler = compiler?;
    println!("{} ids; the compiler takes {build:.0} ms", tokenizer.n_vocab());
    let tool = format!(r#"{{"type":"function","function":{{"name":"tool","parameters":{schema}}}}}"#);
    let tools: Vec<Tool> = vec![serde_json::from_str(&tool)?];
    let calls = Some(Calls { tools: &tools, only: None, parallel: true, sorted: true });
    let wanted = Wanted { calls, content: ContentForm::Nothing, reasoning: Reasoning::Never };
    let (first, grammar) = timed(|| compiler.compile(wanted));
    let (second, _) = timed(|| compiler.compile(wanted));
    println!("compiling takes {first:.2} ms, the second time {second:.3} ms");
    let grammar = grammar?.ok_or("no grammar")?;
    let mut masks = Vec::new();
    for seed in 0..10 {
        let mut progress = grammar.start();
        let mut state: u64 = seed;
        for _ in 0..200 {
            let (mask, words) = timed(|| progress.allowed().map(<[u32]>::to_vec));
            let words = words?;
            let ids = |id: &u32| may_come(&words, *id);
            let allowed: Vec<u32> = (0..tokenizer.n_vocab()).filter(ids).collect();
            masks.push(mask);
            if allowed.is_empty() || stop_ids.iter().any(|id| allowed.contains(id)) {
                break;
            }
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            progress.accept(allowed[(state >> 33) as usize % allowed.len()])?;
        }
    }
    masks.sort_by(f64::total_cmp);
    let at = |part: f64| masks[((masks.len() - 1) as f64 * part) as usize];
    let mean = masks.iter().sum::<f64>() / masks.len() as f64;
    println!(
        "{} masks: mean {mean:.3} ms, median {:.3}, 99 % {:.3}, largest {:.3}",
        masks.len(),
        at(0.5),
        at(0.99),
        at(1.0)
    );
    Ok(())
}

/// Milliseconds, and what was computed.
fn timed<T>(run: impl FnOnce() -> T) -> (f64, T) {
    let start = Instant::now();
    let result = run();
    (start.elapsed().as_secs_f64() * 1e3, result)
}
