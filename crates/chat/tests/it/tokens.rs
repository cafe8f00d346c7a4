//! The tokenizer as a whole, on the small vocabulary.

use std::fs;

use k2_chat::{Tokenizer, pre_tokenizer::Pattern, special::SpecialTokens, tiktoken};
use serde_json::json;

use crate::small::{self, SPECIALS};

/// Id of a special token of the small tokenizer by its place in the list.
fn special(i: usize) -> u32 {
    (small::ranks().len() + i) as u32
}

/// The pieces of `text` after encoding, joined with "|".
fn check(text: &str, allow_special: bool, expected: &str) {
    let tokenizer = small::tokenizer();
    let ids = tokenizer.encode(text, allow_special);
    let pieces: Vec<String> = ids.iter().map(|&id| tokenizer.decode(&[id]).unwrap()).collect();
    assert_eq!(pieces.join("|"), expected, "{text:?}");
}

#[test]
fn special_tokens_in_text() {
    check("a<|im_end|>b", true, "a|<|im_end|>|b");
    check("[EOS][BOS]", true, "[EOS]|[BOS]");
    assert_eq!(small::tokenizer().encode("<|im_end|>", true), [special(2)]);
    assert!(small::tokenizer().encode("<|im_end|>", false).len() > 1);
    // The look-ahead of the pattern sees a special token as the end.
    check("b  <|im_end|>", true, "b|  |<|im_end|>");
    check("b  a", true, "b| | a");
}

#[test]
fn ids_without_a_name_have_a_reserved_one() {
    let tokenizer = small::tokenizer();
    let name = format!("<|reserved_token_{}|>", special(5));
    assert_eq!(tokenizer.encode(&name, true), [special(5)]);
    assert_eq!(tokenizer.decode(&[special(5)]).unwrap(), name);
    assert!(!tokenizer.is_named(special(5)));
    assert!(tokenizer.is_named(special(4)) && tokenizer.is_named(0));
    // The name of an id that has another name is plain text.
    assert!(tokenizer.encode(&format!("<|reserved_token_{}|>", special(4)), true).len() > 1);
    assert_eq!(tokenizer.n_vocab(), special(SPECIALS.len()));
    let unknown = tokenizer.decode(&[tokenizer.n_vocab()]).unwrap_err().to_string();
    assert_eq!(
        unknown,
        format!("token id {0} is not in the vocabulary; ids are 0 to {1}", special(19), special(18))
    );
}

#[test]
fn stop_ids_are_those_of_the_table_and_of_both_configs() {
    let tokenizer = small::tokenizer();
    let (end, eos, eot) = (special(2), special(1), special(6));
    assert_eq!(tokenizer.stop_ids(&[]), [eos, end, eot]);
    let configs =
        [&json!({"eos_token_id": end}), &json!({"eos_token_id": [7, eos]}), &json!({"eos_token_id": null})];
    assert_eq!(tokenizer.stop_ids(&configs), [7, eos, end, eot]);
}

#[test]
fn marked_ranges_are_the_only_special_tokens() {
    let tokenizer = small::tokenizer();
    let text = "<|im_user|>x<|im_end|><|im_end|>";
    let ids = tokenizer.encode_marked(text, &[0..11, 22..32]);
    assert_eq!((ids[0], *ids.last().unwrap()), (special(3), special(2)));
    assert_eq!(ids[1..ids.len() - 1], tokenizer.encode("x<|im_end|>", false));
    // A marker this vocabulary does not have is text, and so is one that is no marker at all.
    assert_eq!(
        tokenizer.encode_marked("<|none|>x", std::slice::from_ref(&(0..8))),
        tokenizer.encode("<|none|>x", false)
    );
    assert_eq!(tokenizer.encode_marked("xyz", &[0..2, 2..9]), tokenizer.encode("xyz", false));
}

#[test]
fn marked_text_is_cut_like_any_long_text() {
    let tokenizer = small::tokenizer();
    let end = "<|im_end|>";
    let text = format!("{end}{}{end}{}{end}", "a".repeat(30_000), "b ".repeat(200_000));
    let markers = [0..10, 30_010..30_020, text.len() - 10..text.len()];
    assert_eq!(tokenizer.encode_marked(&text, &markers), tokenizer.encode(&text, true));
    // A marker across the cut at 400,000 characters stays whole.
    let text = format!("{}{end}x", "a ".repeat(199_998));
    let marked = tokenizer.encode_marked(&text, std::slice::from_ref(&(399_996..400_006)));
    assert_eq!(marked[marked.len() - 2], special(2));
    assert_eq!(tokenizer.decode(&marked).unwrap(), text);
}

#[test]
fn a_folder_is_read() {
    let dir = std::env::temp_dir().join(format!("k2-chat-tokens-{}", std::process::id()));
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("tiktoken.model"), small::rank_file().replace('\n', "\r\n")).unwrap();
    fs::write(dir.join("tokenizer_config.json"), small::config()).unwrap();
    let n_vocab =
        || Tokenizer::from_dir(&dir).map(|tokenizer| tokenizer.n_vocab()).map_err(|e| e.to_string());
    let config = |json: serde_json::Value| fs::write(dir.join("config.json"), json.to_string()).unwrap();
    let table_end = special(SPECIALS.len());
    assert_eq!(n_vocab(), Ok(table_end));
    // With the model's size at hand, Kimi's rule: 256 ids after the ranks, never more than rows.
    config(json!({"vocab_size": table_end + 5}));
    assert_eq!(n_vocab(), Ok(table_end + 5));
    config(json!({"text_config": {"vocab_size": 100_000}}));
    assert_eq!(n_vocab(), Ok(special(256)));
    config(json!({"vocab_size": table_end - 1}));
    assert!(
        n_vocab().unwrap_err().contains("\"[PAD]\" has id 474, but the model has only 474 rows"),
        "{:?}",
        n_vocab()
    );
    config(json!({"vocab_size": 300}));
    assert!(
        n_vocab()
            .unwrap_err()
            .ends_with("has 456 tokens, but the model has only 300 rows (`vocab_size` of config.json)")
    );
    let replace_ranks = |by: &dyn Fn(&std::path::Path)| {
        fs::remove_file(dir.join("tiktoken.model")).unwrap();
        by(&dir.join("tiktoken.model"));
        n_vocab().unwrap_err()
    };
    let sparse = |path: &std::path::Path| fs::File::create(path).unwrap().set_len((256 << 20) + 1).unwrap();
    assert!(replace_ranks(&sparse).ends_with("more than the 268435456 bytes that are accepted"));
    #[cfg(unix)]
    {
        let device = |path: &std::path::Path| std::os::unix::fs::symlink("/dev/zero", path).unwrap();
        assert!(replace_ranks(&device).ends_with("tiktoken.model: not a regular file"));
    }
    fs::remove_dir_all(&dir).unwrap();
    assert!(n_vocab().unwrap_err().contains("tiktoken.model: "));
}

#[test]
fn a_table_without_special_tokens_is_fine() {
    let ranks = small::ranks().len() as u32;
    let vocabulary = tiktoken::parse(small::rank_file().as_bytes()).unwrap();
    let specials = SpecialTokens::from_config(b"{\"added_tokens_decoder\": {}}", ranks, None).unwrap();
    let tokenizer = Tokenizer::new(vocabulary, specials, Pattern::KimiK2).unwrap();
    assert_eq!(tokenizer.n_vocab(), ranks);
    assert_eq!(tokenizer.encode("<|im_end|>", true), tokenizer.encode("<|im_end|>", false));
}
