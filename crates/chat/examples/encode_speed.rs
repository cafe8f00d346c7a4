//! How fast a tokenizer encodes and decodes on one core.
//!
//!     cargo run --release -p k2-chat --example encode_speed -- TOKENIZER_DIR FILE...
//!
//! Prints MB/s per file, best of five, and checks that decoding gives the file back.

use std::{error::Error, fs, path::Path, time::Instant};

use k2_chat::Tokenizer;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let dir = arguments.next().ok_or("usage: encode_speed TOKENIZER_DIR FILE...")?;
    let start = Instant::now();
    let tokenizer = Tokenizer::from_dir(Path::new(&dir))?;
    println!("load {:.0} ms", start.elapsed().as_secs_f64() * 1e3);
    for path in arguments {
        let text = String::from_utf8_lossy(&fs::read(&path)?).into_owned();
        let (encode, ids) = best_of_five(|| tokenizer.encode(&text, false));
        let (decode, decoded) = best_of_five(|| tokenizer.decode(&ids));
        let mega = text.len() as f64 / 1e6;
        println!(
            "{path}: {mega:.2} MB, {} ids ({:.2} bytes each), encode {:.1} MB/s, decode {:.0} MB/s",
            ids.len(),
            text.len() as f64 / ids.len().max(1) as f64,
            mega / encode,
            mega / decode
        );
        if decoded? != text {
            return Err(format!("{path}: decoding does not give the file back").into());
        }
    }
    Ok(())
}

/// Seconds of the fastest run, and what it gave.
fn best_of_five<T>(run: impl Fn() -> T) -> (f64, T) {
    let timed = || {
        let start = Instant::now();
        let result = run();
        (start.elapsed().as_secs_f64(), result)
    };
    (0..4).fold(timed(), |best, _| {
        let next = timed();
        if next.0 < best.0 { next } else { best }
    })
}
