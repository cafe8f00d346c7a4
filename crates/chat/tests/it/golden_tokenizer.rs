//! Every line of the tokenizer's golden files: encoding, streaming decoding, very long texts.

use k2_chat::{Detokenizer, Tokenizer};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::fixtures;

#[derive(Deserialize)]
#[serde(untagged)]
enum Case {
    Decode {
        id: String,
        ids: Vec<u32>,
        token_bytes_hex: Vec<String>,
        chunks: Vec<String>,
        tail: String,
        text: String,
    },
    Encode {
        id: String,
        text: String,
        ids: Vec<u32>,
        allow_special: bool,
    },
    Long {
        id: String,
        pieces: Vec<(String, usize)>,
        n_chars: usize,
        n_ids: usize,
        ids_sha256_le_u32: String,
        ids_first16: Vec<u32>,
        ids_last16: Vec<u32>,
    },
}

fn check(tokenizer: &Tokenizer, case: Case) {
    match case {
        Case::Encode { id, text, ids, allow_special } => {
            assert_eq!(tokenizer.encode(&text, allow_special), ids, "{id}: {text:?}");
            assert_eq!(tokenizer.decode(&ids).unwrap(), text, "{id}");
        }
        Case::Decode { id, ids, token_bytes_hex, chunks, tail, text } => {
            let bytes: Vec<String> = ids.iter().map(|&id| hex(tokenizer.token_bytes(id).unwrap())).collect();
            assert_eq!(bytes, token_bytes_hex, "{id}");
            let mut detokenizer = Detokenizer::new();
            let streamed: Vec<String> =
                ids.iter().map(|&id| detokenizer.push(tokenizer, id).unwrap()).collect();
            assert_eq!(streamed, chunks, "{id}");
            assert_eq!(detokenizer.finish(), tail, "{id}");
            assert_eq!(tokenizer.decode(&ids).unwrap(), text, "{id}");
        }
        Case::Long { id, pieces, n_chars, n_ids, ids_sha256_le_u32, ids_first16, ids_last16 } => {
            let text: String = pieces.iter().map(|(piece, times)| piece.repeat(*times)).collect();
            assert_eq!(text.chars().count(), n_chars, "{id}");
            let ids = tokenizer.encode(&text, true);
            assert_eq!(ids.len(), n_ids, "{id}");
            assert_eq!((&ids[..16], &ids[n_ids - 16..]), (&ids_first16[..], &ids_last16[..]), "{id}");
            let bytes: Vec<u8> = ids.iter().flat_map(|id| id.to_le_bytes()).collect();
            assert_eq!(hex(&Sha256::digest(bytes)), ids_sha256_le_u32, "{id}");
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn every_line() {
    let lines = fixtures::lines("tokenizer");
    if let Some(tokenizer) = fixtures::kimi() {
        for line in &lines {
            check(tokenizer, serde_json::from_str(line).unwrap());
        }
        println!("{} lines", lines.len());
    }
}
