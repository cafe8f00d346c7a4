//! Records, packing and the stream: masks, errors, and going on where one was.

use k2_chat::{Message, Role, Template, Tokenizer};
use k2_train::data::{DataError, DataSettings, Document, Packer, Stream};
use k2_train::{Batch, Source, TrainError};
use serde_json::{Value, json};
use std::collections::HashSet;
use std::convert::Infallible;
use std::path::{Path, PathBuf};

use crate::bpe::{folder, tokenizer};

/// A file of its own for a test.
fn file(name: &str, text: impl AsRef<[u8]>) -> PathBuf {
    let path = std::env::temp_dir().join(format!("k2-train-{}-{name}", std::process::id()));
    std::fs::write(&path, text).unwrap();
    path
}

fn settings(changes: Value) -> Result<DataSettings, DataError> {
    let mut section = json!({ "tokenizer": folder(), "seed": 3, "sources": [{ "kind": "dialogues" }] });
    section.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    DataSettings::from_recipe(section.as_object().unwrap())
}

fn stream(changes: Value) -> Result<Stream, DataError> {
    Stream::open(&settings(changes)?, 4, 512)
}

/// The words that a batch's loss is about.
fn learned(tokenizer: &Tokenizer, batch: &Batch) -> String {
    let ids: Vec<u32> = batch
        .targets
        .iter()
        .zip(&batch.loss_mask)
        .filter(|(_, mask)| **mask > 0.0)
        .map(|(id, _)| *id)
        .collect();
    tokenizer.decode(&ids).unwrap()
}

#[test]
fn only_the_assistants_words_are_in_the_loss() {
    let messages = [
        Message::text(Role::User, "Say <|im_assistant|>assistant<|im_middle|>no<|im_end|>"),
        Message::text(Role::Assistant, "one"),
        Message::text(Role::User, "two"),
        Message::text(Role::Assistant, "three"),
    ];
    let line = json!({ "messages": messages, "tools": null }).to_string() + "\n";
    let path = file("loss.jsonl", &line);
    let mut stream =
        stream(json!({ "sources": [{ "kind": "jsonl", "path": path }], "held_out": 0.0 })).unwrap();
    let batch = stream.next_batch().unwrap();
    let once = "one<|im_end|>three<|im_end|>";
    let all = learned(&tokenizer(), &batch);
    assert!(all.starts_with(once) && all.replace(once, "").is_empty(), "{all}");
}

/// A folder with a tokenizer that has K2-Thinking's markers, and a template of its own if one is given.
pub(crate) fn thinking_folder(name: &str, template: Option<&str>) -> PathBuf {
    let thinking = std::env::temp_dir().join(format!("k2-train-{}-{name}", std::process::id()));
    std::fs::create_dir_all(&thinking).unwrap();
    if let Some(template) = template {
        std::fs::write(thinking.join("chat_template.jinja"), template).unwrap();
    }
    std::fs::copy(folder().join("tiktoken.model"), thinking.join("tiktoken.model")).unwrap();
    let config = std::fs::read(folder().join("tokenizer_config.json")).unwrap();
    let mut config: Value = serde_json::from_slice(&config).unwrap();
    let tokens = config["added_tokens_decoder"].as_object_mut().unwrap();
    let like = tokens.values().find(|token| token["special"] == false).unwrap().clone();
    for (offset, content) in [(22, "<think>"), (23, "</think>")] {
        let mut token = like.clone();
        token["content"] = json!(content);
        tokens.insert((tokenizer().ranks() + offset).to_string(), token);
    }
    std::fs::write(thinking.join("tokenizer_config.json"), config.to_string()).unwrap();
    thinking
}

#[test]
fn reasoning_is_the_assistants_own() {
    let call =
        json!({ "id": "functions.f:0", "type": "function", "function": { "name": "f", "arguments": "{}" } });
    let messages = json!([
        { "role": "user", "content": "one?" },
        { "role": "assistant", "reasoning_content": "easy", "content": "one" },
        { "role": "user", "content": "two?" },
        { "role": "assistant", "reasoning_content": "look <think>", "content": "", "tool_calls": [call] },
        { "role": "tool", "tool_call_id": "functions.f:0", "content": "2" },
        { "role": "assistant", "reasoning_content": "clear", "content": "two" },
    ]);
    let path = file("thinking.jsonl", json!({ "messages": messages }).to_string());
    let sources = json!([{ "kind": "jsonl", "path": path }]);
    let batch_of = |folder: &Path, template: Option<&str>| {
        let changes =
            json!({ "tokenizer": folder, "template": template, "sources": sources, "held_out": 0.0 });
        stream(changes).unwrap().next_batch().unwrap()
    };
    let calls = "<|tool_calls_section_begin|><|tool_call_begin|>functions.f:0<|tool_call_argument_begin|>{}\
                 <|tool_call_end|><|tool_calls_section_end|><|im_end|>";
    let one = "<think>easy</think>one<|im_end|>";
    let two = format!("<think>look <think></think>{calls}<think>clear</think>two<|im_end|>");
    let thinking = thinking_folder("thinking", None);
    let k25 = thinking_folder("k2.5", Some("<|im_middle|>{{ tools_ts_str }}"));
    let tokenizer = Tokenizer::from_dir(&thinking).unwrap();
    for (folder, template) in
        [(&thinking, None), (&thinking, Some("k2-thinking")), (&k25, None), (&k25, Some("k2.5"))]
    {
        let batch = batch_of(folder, template);
        let all = learned(&tokenizer, &batch);
        assert!(all.contains(one) && all.contains(&two), "{template:?}: {all}");
        assert_eq!(all.replace(one, "").replace(&two, ""), "", "{template:?}");
        let read = tokenizer.decode(&batch.tokens).unwrap();
        let history = "<think></think>one<|im_end|><|im_user|>user<|im_middle|>two?";
        assert!(read.contains(history), "{template:?}: {read}");
    }
    let instruct = thinking_folder("instruct", Some("<|im_middle|>"));
    let all = learned(&tokenizer, &batch_of(&instruct, None));
    assert_eq!(all.replace(&format!("one<|im_end|>{calls}two<|im_end|>"), ""), "");
}

/// As in OpenAI's fine-tuning: an answer of weight 0 is there, and nothing of it is learned, whatever the prompt counts.
#[test]
fn an_answer_of_weight_0_is_not_learned() {
    let thinking = thinking_folder("weights", None);
    let check = |folder: &Path, thought: Option<&str>, wanted: &str| {
        let say = |role: &str, content: &str| json!({ "role": role, "content": content });
        let (mut one, mut two) = (say("assistant", "one"), say("assistant", "two"));
        (one["weight"], two["weight"]) = (json!(0), json!(1.0));
        (one["reasoning_content"], two["reasoning_content"]) = (json!(thought), json!(thought));
        let messages = json!([say("user", "a"), one, say("user", "b"), two, say("user", "c")]);
        let path = file("weights.jsonl", json!({ "messages": messages, "tools": null }).to_string());
        let sources = json!([{ "kind": "jsonl", "path": path }]);
        let changes =
            json!({ "tokenizer": folder, "sources": sources, "held_out": 0.0, "first_token_weight": 3.0 });
        let batch = stream(changes).unwrap().next_batch().unwrap();
        let tokenizer = Tokenizer::from_dir(folder).unwrap();
        assert!(tokenizer.decode(&batch.tokens).unwrap().contains("one"));
        assert_eq!(learned(&tokenizer, &batch).replace(wanted, ""), "", "{thought:?}");
    };
    check(folder(), None, "two<|im_end|>");
    check(&thinking, Some("hm"), "<think>hm</think>two<|im_end|>");

    let one = json!({ "role": "assistant", "content": "one", "weight": 0 });
    let two = json!({ "role": "assistant", "content": "two" });
    let path = file("weights-prompt.jsonl", json!({ "messages": [one, two] }).to_string());
    let sources = json!([{ "kind": "jsonl", "path": path }]);
    let changes = json!({ "sources": sources, "held_out": 0.0, "prompt_weight": 0.5 });
    let learned = learned(&tokenizer(), &stream(changes).unwrap().next_batch().unwrap());
    assert!(learned.contains("two<|im_end|>") && !learned.contains("one"), "{learned}");
}

/// What is trained in one form and served in another answers badly, and nothing says why.
#[test]
fn a_turn_format_that_would_not_be_served_is_refused() {
    let (thinking, other) = (thinking_folder("served", None), thinking_folder("other", Some("{{ bos }}")));
    let check = |folder: &Path, template: Option<&str>, wanted: Result<Template, &str>| {
        let settings = settings(json!({ "tokenizer": folder, "template": template })).unwrap();
        match (settings.template(), wanted) {
            (Ok(found), Ok(wanted)) => assert_eq!(found, wanted),
            (found, wanted) => {
                let (found, wanted) = (found.unwrap_err().to_string(), wanted.unwrap_err());
                assert!(found.contains(wanted), "{found}");
            }
        }
    };
    check(folder(), None, Ok(Template::K2Instruct));
    check(folder(), Some("k2-instruct"), Ok(Template::K2Instruct));
    check(folder(), Some("k2-thinking"), Err("data.template is k2-thinking, but what is published"));
    check(&thinking, None, Ok(Template::K2Thinking));
    check(&thinking, Some("k2-instruct"), Err("is served with k2-thinking"));
    check(&other, None, Err("is none of Kimi K2's"));
    check(&other, Some("k2-thinking"), Ok(Template::K2Thinking));
}

#[test]
fn dialogues_teach_calls_and_answers_only() {
    let mut stream = stream(json!({})).unwrap();
    let batch = stream.next_batch().unwrap();
    batch.check(tokenizer().n_vocab() as usize).unwrap();
    let learned = learned(&tokenizer(), &batch);
    assert!(learned.contains("<|tool_call_end|><|tool_calls_section_end|><|im_end|>"), "{learned}");
    for never in ["<|im_user|>", "<|im_assistant|>", "<|im_middle|>", "## Return of", "\"parameters\""] {
        assert!(!learned.contains(never), "{never} in {learned}");
    }
}

#[test]
fn the_prompt_can_count_a_little() {
    let with = stream(json!({ "prompt_weight": 0.25 })).unwrap().next_batch().unwrap();
    let without = stream(json!({})).unwrap().next_batch().unwrap();
    assert_eq!(with.tokens, without.tokens);
    for (position, (with, without)) in with.loss_mask.iter().zip(&without.loss_mask).enumerate() {
        assert!(*with == 1.0 && *without == 1.0 || *without == 0.0, "{position}: {with} {without}");
    }
    assert!(with.loss_mask.contains(&0.25));
}

#[test]
fn where_a_turn_begins_can_count_more() {
    let with = stream(json!({ "first_token_weight": 4.0 })).unwrap().next_batch().unwrap();
    let without = stream(json!({})).unwrap().next_batch().unwrap();
    assert_eq!(with.tokens, without.tokens);
    let mut turns = 0;
    for (position, &counts) in without.loss_mask.iter().enumerate() {
        let begins = counts == 1.0 && (position == 0 || without.loss_mask[position - 1] == 0.0);
        turns += usize::from(begins);
        assert_eq!(with.loss_mask[position], if begins { 4.0 } else { counts }, "{position}");
    }
    assert!(turns > 10, "{turns}");
}

/// Fewer tokens of the prompt, each counting more: about the same in sum.
#[test]
fn the_prompt_can_be_sampled() {
    let weight = |settings| {
        let batch = stream(settings).unwrap().next_batch().unwrap();
        let prompt = batch.loss_mask.iter().filter(|weight| **weight != 1.0 && **weight != 0.0);
        (prompt.clone().count() as f32, prompt.sum::<f32>())
    };
    let (all, whole) = weight(json!({ "prompt_weight": 0.1 }));
    let (some, sampled) = weight(json!({ "prompt_weight": 0.1, "prompt_sample": 0.25 }));
    assert!((some / all - 0.25).abs() < 0.05 && (sampled / whole - 1.0).abs() < 0.2, "{some} of {all}");
}

#[test]
fn schemas_are_called_with_what_they_take() {
    let mut stream = stream(json!({ "sources": [{ "kind": "schemas" }] })).unwrap();
    let learned = learned(&tokenizer(), &stream.next_batch().unwrap());
    assert!(learned.contains("<|tool_call_argument_begin|>{") && learned.contains("Done"), "{learned}");
}

#[test]
fn a_line_said_twice_is_learned_once() {
    let mut stream = stream(json!({ "sources": [{ "kind": "lines" }] })).unwrap();
    let batch = stream.next_batch().unwrap();
    let tokenizer = tokenizer();
    for learned in learned(&tokenizer, &batch).split("<|im_end|>").filter(|line| !line.is_empty()).take(3) {
        let all = tokenizer.decode(&batch.tokens).unwrap();
        assert_eq!(all.matches(learned.trim_end()).count(), 2, "{learned:?}");
    }
}

#[test]
fn every_piece_of_the_vocabulary_is_copied() {
    let mut stream = stream(json!({ "sources": [{ "kind": "pieces" }] })).unwrap();
    let (ranks, end) = (tokenizer().ranks(), tokenizer().specials().id("<|im_end|>").unwrap());
    let mut seen = HashSet::new();
    for _ in 0..60 {
        let batch = stream.next_batch().unwrap();
        let learned = batch.targets.iter().zip(&batch.loss_mask).filter(|(_, mask)| **mask > 0.0);
        let learned: Vec<u32> = learned.map(|(id, _)| *id).collect();
        let first = learned.split(|id| *id == end).next().unwrap();
        let said = batch.tokens.windows(first.len()).filter(|window| window == &first).count();
        assert!(first.len() >= 8 && said == 2, "{first:?}: {said}");
        seen.extend(learned.iter().filter(|id| **id < ranks).copied());
    }
    assert!(seen.len() * 10 > ranks as usize * 9, "{} of {ranks}", seen.len());
}

#[test]
fn a_cursor_leads_back_to_the_same_batches() {
    let text = "The first block\nhas two lines.\n\nThe second one.\n\nAnd a third.\n";
    let path = file("cursor.txt", text);
    let sources = json!([{ "kind": "dialogues", "weight": 8 }, { "kind": "lines" }, { "kind": "pieces" }, { "kind": "text", "path": path }]);
    let open = || stream(json!({ "sources": sources, "held_out": 0.0 })).unwrap();
    let mut whole = open();
    for before in [0, 1, 5] {
        (0..before).for_each(|_| drop(whole.next_batch().unwrap()));
        let cursor = whole.cursor();
        let wanted: Vec<Batch> = (0..3).map(|_| whole.next_batch().unwrap()).collect();
        let mut resumed = open();
        resumed.seek(&cursor).unwrap();
        let found: Vec<Batch> = (0..3).map(|_| resumed.next_batch().unwrap()).collect();
        assert_eq!(found, wanted, "after {before}");
        assert_eq!(resumed.cursor(), whole.cursor());
    }
}

#[test]
fn cursors_of_other_data_are_refused() {
    let mut stream = stream(json!({})).unwrap();
    for cursor in [
        json!(7),
        json!({ "documents": [1, 2], "tokens": [3, 4], "waiting": [] }),
        json!({ "documents": [1], "tokens": [3], "waiting": [[1, 0]] }),
    ] {
        let error = stream.seek(&cursor).unwrap_err();
        assert!(matches!(&error, TrainError::Data(_)), "{error}");
        assert!(error.to_string().starts_with("the data cursor does not fit: "), "{error}");
    }
}

#[test]
fn shares_are_of_tokens() {
    let sources = json!([{ "kind": "dialogues", "weight": 3 }, { "kind": "lines", "weight": 1 }]);
    let mut stream = stream(json!({ "sources": sources })).unwrap();
    (0..20).for_each(|_| drop(stream.next_batch().unwrap()));
    let tokens = stream.cursor()["tokens"].clone();
    let share = tokens[0].as_f64().unwrap() / tokens[1].as_f64().unwrap();
    assert!((share - 3.0).abs() < 0.1, "{tokens}");
}

#[test]
fn held_out_batches_are_apart_from_training() {
    let lines: String =
        (0..400).map(|i| format!("{}\n", json!({ "text": format!("record number {i} of many") }))).collect();
    let path = file("held-out.jsonl", &lines);
    let changes = json!({ "sources": [{ "kind": "jsonl", "path": path }], "held_out": 0.2 });
    let (tokenizer, mut stream) = (tokenizer(), stream(changes).unwrap());
    let records = |batches: &[Batch]| -> Vec<String> {
        let text: String = batches.iter().map(|batch| learned(&tokenizer, batch)).collect();
        let mut records: Vec<String> = text.split("<|im_end|>").map(str::to_owned).collect();
        records.sort();
        records.dedup();
        records.into_iter().filter(|record| !record.is_empty()).collect()
    };
    let held_out = records(&stream.held_out(10).unwrap());
    let training: Vec<Batch> = (0..12).map(|_| stream.next_batch().unwrap()).collect();
    let training = records(&training);
    assert!(held_out.len() > 40 && held_out.len() < 130, "{}", held_out.len());
    assert!(held_out.iter().all(|record| !training.contains(record)));
    assert_eq!(held_out.len() + training.len(), 400);
}

#[test]
fn bad_records_are_named_and_left_out_only_if_told_so() {
    let good = r#"{"text": "good"}"#;
    let long = "x".repeat((16 << 20) + 10);
    for (bad, problem) in [
        ("not json", "expected"),
        (r#"{"text": 7}"#, "invalid type"),
        (r#"{"text": "a", "messages": []}"#, "expected either"),
        (r#"{"other": 1}"#, "unknown field"),
        (r#"{"messages": []}"#, "`messages` is empty"),
        (r#"{"messages": [{"role": "user", "content": "hi"}]}"#, "nothing in it is to be learned"),
        (
            r#"{"messages": [{"role": "user", "content": "hi", "partial": true}, {"role": "assistant"}]}"#,
            "partial",
        ),
        (
            r#"{"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "contnet": "x"}]}"#,
            "messages[1] has an unknown key \"contnet\", expected role, content",
        ),
        (
            r#"{"messages": [{"role": "user", "content": "hi"}, {"role": "asistant", "content": "x"}]}"#,
            "messages[1].role is \"asistant\", expected system, user, assistant",
        ),
        (
            r#"{"messages": [{"role": "assistant", "content": [{"type": "text", "txt": "x"}]}]}"#,
            "messages[0].content[0] has an unknown key \"txt\"",
        ),
        (
            r#"{"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "args": {}}}]}]}"#,
            "messages[0].tool_calls[0].function has an unknown key \"args\"",
        ),
        (
            r#"{"messages": [{"role": "assistant", "content": "x", "weight": 0.5}]}"#,
            "messages[0].weight is 0.5, expected 0 or 1",
        ),
        (
            r#"{"messages": [{"role": "user", "content": "x", "weight": 1}]}"#,
            "messages[0] is of the role user and has a `weight`",
        ),
        (
            r#"{"messages": [{"role": "assistant", "content": "x", "weight": 0}]}"#,
            "nothing in it is to be learned",
        ),
        (long.as_str(), "the record has more than 16777216 bytes"),
        ("\0", "it is not UTF-8"),
    ] {
        let text = format!("{good}\n\n{bad}\n{good}\n");
        // No text can hold this.
        let bytes: Vec<u8> = text.bytes().map(|byte| if byte == 0 { 0xff } else { byte }).collect();
        let path = file("bad.jsonl", bytes);
        let sources = json!([{ "kind": "jsonl", "path": path }]);
        let error = stream(json!({ "sources": sources })).err().unwrap();
        let text = error.to_string();
        assert!(matches!(error, DataError::Record { line: 3, .. }), "{text}");
        assert!(text.contains("bad.jsonl:3: ") && text.contains(problem), "{text}");
        let stream =
            stream(json!({ "sources": sources, "skip_bad_records": true, "held_out": 0.0 })).unwrap();
        let skipped = stream.skipped();
        assert_eq!(skipped.records, 1);
        assert!(skipped.first.unwrap().contains(problem));
    }
}

/// One byte of Latin-1 is one bad line, of a text too.
#[test]
fn a_bad_line_of_a_text_is_named_and_left_out_only_if_told_so() {
    let path = file("latin.txt", b"Good morning.\n\nM\xfcnchen\n\nGood night.\n");
    let sources = json!([{ "kind": "text", "path": path }]);
    let error = stream(json!({ "sources": sources })).err().unwrap().to_string();
    assert!(error.contains("latin.txt:3: it is not UTF-8; set data.skip_bad_records"), "{error}");
    let mut stream =
        stream(json!({ "sources": sources, "skip_bad_records": true, "held_out": 0.0 })).unwrap();
    assert_eq!(stream.skipped().records, 1);
    let learned = learned(&tokenizer(), &stream.next_batch().unwrap());
    assert!(learned.contains("morning.<|im_end|>") && learned.contains("night.<|im_end|>"), "{learned}");
}

/// A conversation that is longer than a sequence is a bad record as any other.
#[test]
fn conversations_that_are_too_long_are_counted() {
    let say = |role: &str, content: &str| json!({ "role": role, "content": content });
    let record = |question: &str| json!({ "messages": [say("user", question), say("assistant", "yes")] });
    let text = format!("{}\n{}\n", record("ok?"), record(&"word ".repeat(600)));
    let sources = json!([{ "kind": "jsonl", "path": file("too-long.jsonl", text) }]);
    let settings = json!({ "sources": sources, "skip_bad_records": true, "held_out": 0.0 });
    let skipped = stream(settings).unwrap().skipped();
    let first = skipped.first.unwrap();
    assert!(skipped.records == 1 && first.contains("too-long.jsonl:2: the conversation has "), "{first}");
}

#[test]
fn settings_that_make_no_sense_are_refused() {
    let path = file("empty.txt", "\n\n");
    for (changes, problem) in [
        (json!({ "colour": 1 }), "unknown field"),
        (json!({ "held_out": 0.9 }), "data.held_out is 0.9, expected 0 to 0.5"),
        (json!({ "prompt_weight": -1 }), "data.prompt_weight is -1"),
        (json!({ "prompt_sample": 0 }), "data.prompt_sample is 0"),
        (json!({ "first_token_weight": 101 }), "data.first_token_weight is 101, expected 0 to 100"),
        (json!({ "sources": [] }), "data.sources is empty"),
        (json!({ "sources": [{ "kind": "jsonl" }] }), "a path for jsonl and text only"),
        (json!({ "sources": [{ "kind": "lines", "path": "x" }] }), "a path for jsonl and text only"),
        (json!({ "sources": [{ "kind": "lines", "weight": 0 }] }), "data.sources.weight is 0"),
        (json!({ "sources": [{ "kind": "text", "path": "/nowhere" }] }), "/nowhere: "),
        (json!({ "sources": [{ "kind": "text", "path": path }] }), "no record is left"),
        (json!({ "tokenizer": "/nowhere" }), "/nowhere/tiktoken.model"),
        (json!({ "template": "k3" }), "data.template: no template is called \"k3\""),
        (json!({ "template": "k2-thinking" }), "is served with k2-instruct; leave data.template out"),
    ] {
        let error = stream(changes.clone()).err().unwrap().to_string();
        assert!(error.contains(problem), "{changes}: {error}");
    }
}

#[test]
fn long_texts_become_several_documents() {
    let words: String = (0..3000).map(|i| format!("word{i} ")).collect();
    let path = file("long.txt", &words);
    let mut stream =
        stream(json!({ "sources": [{ "kind": "text", "path": path }], "held_out": 0.0 })).unwrap();
    let tokenizer = tokenizer();
    let text: String = (0..40).map(|_| learned(&tokenizer, &stream.next_batch().unwrap())).collect();
    // A word at a cut is learned in two parts that need not follow each other.
    let lost = (0..3000).filter(|i| !text.contains(&format!("word{i} "))).count();
    assert!(lost < 40, "{lost} words are lost");
}

fn pack(lengths: &[usize], sequences: usize, length: usize) -> Batch {
    let document = |(number, length): (usize, &usize)| {
        let tokens = (0..*length).map(|place| (100 * number + place) as u32).collect();
        (number, Document { tokens, weights: vec![1.0; *length] })
    };
    let mut documents = lengths.iter().enumerate().map(document);
    let mut packer = Packer::new(9999);
    packer.batch(sequences, length, || Ok::<_, Infallible>(documents.next())).unwrap()
}

#[test]
fn packed_documents_stay_apart() {
    let batch = pack(&[5, 3, 4, 20], 3, 8);
    batch.check(10_000).unwrap();
    let rows = |values: &[u32]| -> Vec<Vec<u32>> { values.chunks(8).map(<[u32]>::to_vec).collect() };
    assert_eq!(
        rows(&batch.tokens),
        [
            vec![0, 1, 2, 3, 200, 201, 202, 9999],
            vec![100, 101, 9999, 9999, 9999, 9999, 9999, 9999],
            vec![300, 301, 302, 303, 304, 305, 306, 307],
        ]
    );
    assert_eq!(rows(&batch.targets)[0], [1, 2, 3, 4, 201, 202, 203, 9999]);
    assert_eq!(rows(&batch.document_ids)[0], [0, 0, 0, 0, 1, 1, 1, 2]);
    assert_eq!(batch.loss_mask[..8], [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0]);
    assert_eq!(rows(&batch.targets)[2].last(), Some(&308), "cut where the sequence ends");
}

#[test]
fn little_is_left_free() {
    let mut stream = Stream::open(&settings(json!({})).unwrap(), 2, 2048).unwrap();
    let padding = tokenizer().specials().id("[PAD]").unwrap();
    let batches: Vec<Batch> = (0..30).map(|_| stream.next_batch().unwrap()).collect();
    let free = batches.iter().flat_map(|batch| &batch.tokens).filter(|token| **token == padding).count();
    let share = free as f64 / (30.0 * 2.0 * 2048.0);
    assert!(share < 0.04, "{share}");
}
