//! Synthetic dialogues: the same again from a seed, apart from what is held out, and never wrong.

use k2_chat::python_json::{Style, dumps};
use k2_chat::{Json, RenderOptions, Template, render};
use k2_train::dialogues::catalogue::slots;
use k2_train::dialogues::values::ValueType;
use k2_train::dialogues::{Catalogue, Dialogue, Generator, Part, Scope, Topic, is_held_out};
use k2_train::evaluate::says;
use std::collections::HashSet;

const MANY: u64 = 4000;

fn generator() -> Generator {
    Generator::new(7).unwrap()
}

fn dialogues(scope: Scope) -> impl Iterator<Item = Dialogue> {
    let generator = generator();
    (0..MANY).map(move |index| generator.dialogue(scope, index))
}

#[test]
fn a_seed_and_a_number_are_a_dialogue() {
    let (one, two) = (generator(), generator());
    let other = Generator::new(8).unwrap();
    for index in 0..50 {
        assert_eq!(one.dialogue(Scope::TRAINING, index), two.dialogue(Scope::TRAINING, index));
        assert_ne!(one.dialogue(Scope::TRAINING, index), other.dialogue(Scope::TRAINING, index));
    }
}

/// All that a phrase can become, without quotes, case and marks, which do not make it another.
fn spoken(phrase: &str) -> Vec<String> {
    let choices = |rest: &str| -> Option<(usize, usize)> {
        let open = rest.find('(')?;
        let close = open + rest[open..].find(')')?;
        rest[open..close].contains('|').then_some((open, close))
    };
    match choices(phrase) {
        Some((open, close)) => phrase[open + 1..close]
            .split('|')
            .flat_map(|choice| spoken(&format!("{}{choice}{}", &phrase[..open], &phrase[close + 1..])))
            .collect(),
        None => {
            let phrase = phrase.to_lowercase().replace("'s ", " is ");
            vec![
                phrase
                    .replace(['\'', '"', '.', ',', ':', '?', '!', '-'], " ")
                    .split_whitespace()
                    .collect::<Vec<_>>()
                    .join(" "),
            ]
        }
    }
}

#[test]
fn training_never_sees_a_held_out_tool_or_phrase() {
    let catalogue = Catalogue::load().unwrap();
    let held_out: Vec<_> = catalogue.kinds.iter().filter(|kind| kind.held_out).collect();
    assert!(held_out.len() >= 3, "{}", held_out.len());
    for kind in &catalogue.kinds {
        assert!(kind.held_out || !kind.held_out_phrases.is_empty(), "{} has no held-out phrase", kind.id);
        let all =
            |phrases: &[String]| phrases.iter().flat_map(|phrase| spoken(phrase)).collect::<HashSet<_>>();
        let (seen, held_out) = (all(&kind.phrases), all(&kind.held_out_phrases));
        assert_eq!(seen.intersection(&held_out).collect::<Vec<_>>(), Vec::<&String>::new(), "{}", kind.id);
    }
    let descriptions: Vec<&str> =
        held_out.iter().flat_map(|kind| &kind.descriptions).map(|text| text.trim_end_matches('.')).collect();
    for dialogue in dialogues(Scope::TRAINING) {
        for tool in &dialogue.tools {
            let description = tool.0.get("function").unwrap().get("description").unwrap().as_str().unwrap();
            assert!(descriptions.iter().all(|held_out| !description.contains(held_out)), "{description}");
        }
        for exchange in &dialogue.exchanges {
            let open_end =
                |phrase: &str| !phrase.contains(['{', '(']) && exchange.user.eq_ignore_ascii_case(phrase);
            let said = catalogue
                .kinds
                .iter()
                .flat_map(|kind| &kind.held_out_phrases)
                .find(|phrase| open_end(phrase));
            assert_eq!(said, None);
        }
    }
}

/// Names of the declared tools of some dialogues, each once.
fn tool_names(scope: Scope, indices: std::ops::Range<u64>) -> HashSet<String> {
    let generator = generator();
    let tools = indices.flat_map(|index| generator.dialogue(scope, index).tools);
    tools.filter_map(|tool| tool.name().map(str::to_owned)).collect()
}

#[test]
fn there_is_no_end_of_tools() {
    let (first, second) =
        (tool_names(Scope::TRAINING, 0..MANY / 2), tool_names(Scope::TRAINING, MANY / 2..MANY));
    let new = second.difference(&first).count();
    assert!(first.len() > 1500 && new * 10 > second.len() * 6, "{new} new of {}", second.len());
    // Held-out phrases there are only for the kinds of the catalogue, so cases with those have no others.
    let catalogue = Catalogue::load().unwrap();
    let topics: Vec<&str> = catalogue.kinds.iter().map(|kind| kind.topic.as_str()).collect();
    for dialogue in dialogues(Scope::HELD_OUT).take(500) {
        for tool in &dialogue.tools {
            let description = tool.0.get("function").unwrap().get("description").unwrap().as_str().unwrap();
            let told = description.split_once("when the user asks about ").map(|(_, topic)| topic);
            assert!(told.is_none_or(|topic| topics.contains(&topic.trim_end_matches('.'))), "{description}");
        }
    }
}

#[test]
fn made_up_tools_are_asked_for_in_related_words_too() {
    let catalogue = Catalogue::load().unwrap();
    let of_catalogue: HashSet<&str> =
        catalogue.kinds.iter().flat_map(|kind| &kind.names).map(String::as_str).collect();
    // Of the tools of several words that nobody has, those without any of them in the request.
    let shares_none = |related: bool| {
        let (mut none, mut all) = (0, 0);
        for dialogue in dialogues(Scope { related, renamed: false, ..Scope::TRAINING }) {
            for exchange in dialogue.exchanges.iter().filter(|exchange| exchange.topic == Topic::Call) {
                let (name, user) = (&exchange.calls[0].name, exchange.user.to_lowercase());
                if name.contains('_') && !of_catalogue.contains(name.as_str()) {
                    all += 1;
                    none += usize::from(!name.split('_').any(|word| word.len() > 3 && user.contains(word)));
                }
            }
        }
        none as f64 / all as f64
    };
    let (own, related) = (shares_none(false), shares_none(true));
    assert!(related > own + 0.05, "{own} without, {related} with related words");
}

#[test]
fn requests_that_no_tool_fits_are_often_for_values_that_a_tool_takes() {
    // Of such requests with a number in them, those beside a tool that must have one.
    let beside_a_number = |lookalikes: bool| {
        let (mut beside, mut all) = (0, 0);
        for dialogue in dialogues(Scope { lookalikes, ..Scope::TRAINING }) {
            let takes_a_number =
                dialogue.tools.iter().any(|tool| dumps(&tool.0, Style::Default).contains("\"number\""));
            for exchange in dialogue.exchanges.iter().filter(|exchange| exchange.topic == Topic::NoTool) {
                if !dialogue.tools.is_empty()
                    && exchange.user.contains(|letter: char| letter.is_ascii_digit())
                {
                    all += 1;
                    beside += usize::from(takes_a_number);
                }
            }
        }
        beside as f64 / all as f64
    };
    let (without, with) = (beside_a_number(false), beside_a_number(true));
    assert!(with > without + 0.05, "{without} without, {with} with lookalikes");
}

#[test]
fn words_that_are_copied_come_from_more_than_the_lists() {
    let lists = include_str!("../../src/dialogues/lists.toml").to_lowercase();
    // Of the words that arguments in plain letters are made of, those that stand in no list.
    let in_no_list = |spliced: bool| {
        let (mut none, mut all) = (0, 0);
        for dialogue in dialogues(Scope { spliced, ..Scope::TRAINING }) {
            for call in dialogue.exchanges.iter().flat_map(|exchange| &exchange.calls) {
                let Json::Object(arguments) = &call.arguments else { panic!("{:?}", call.arguments) };
                let texts = arguments.iter().filter_map(|(_, value)| value.as_str());
                let plain = texts
                    .filter(|text| text.chars().all(|letter| letter == ' ' || letter.is_ascii_lowercase()));
                for word in plain.flat_map(|text| text.split(' ')) {
                    all += 1;
                    none += usize::from(!lists.contains(word));
                }
            }
        }
        none as f64 / all as f64
    };
    let (without, with) = (in_no_list(false), in_no_list(true));
    assert!(with > without + 0.05, "{without} without, {with} with spliced words");
}

#[test]
fn requests_are_in_the_language_of_their_table() {
    let is_han = |text: &String| text.chars().any(|letter| ('\u{4e00}'..='\u{9fff}').contains(&letter));
    for kind in Catalogue::load().unwrap().kinds {
        for texts in [&kind.phrases, &kind.held_out_phrases, &kind.incomplete, &kind.follow_ups, &kind.pairs]
        {
            assert_eq!(texts.iter().find(|text| is_han(text)), None, "{}", kind.id);
        }
    }
}

#[test]
fn training_never_sees_a_held_out_value() {
    // A tool whose parameters all have held-out values: then every text argument must be a seen one.
    let catalogue = Catalogue::load().unwrap();
    let all_open = |dialogue: &Dialogue, name: &str| {
        let tool = dialogue.tools.iter().find(|tool| tool.name() == Some(name)).unwrap();
        let description =
            tool.0.get("function").unwrap().get("description").unwrap().as_str().unwrap().to_owned();
        let kind = catalogue.kinds.iter().find(|kind| {
            kind.descriptions.iter().any(|text| description.starts_with(text.trim_end_matches('.')))
        });
        kind.is_some_and(|kind| kind.parameters.iter().all(|parameter| parameter.kind.has_held_out_values()))
    };
    for (scope, wanted) in [(Scope::TRAINING, false), (Scope::HELD_OUT, true)] {
        let mut values = 0;
        for dialogue in dialogues(scope) {
            for call in dialogue.exchanges.iter().flat_map(|exchange| &exchange.calls) {
                if !all_open(&dialogue, &call.name) {
                    continue;
                }
                let Json::Object(arguments) = &call.arguments else { panic!("{:?}", call.arguments) };
                for value in arguments.values() {
                    // Timers in minutes and in words have a description in common.
                    if let Json::String(text) = value
                        && text.parse::<i64>().is_err()
                    {
                        assert_eq!(is_held_out(text), wanted, "{text}");
                        values += 1;
                    }
                }
            }
        }
        assert!(values > 500, "{values}");
    }
}

#[test]
fn arguments_can_be_copied_from_what_was_said() {
    let spoken = ["two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"];
    for dialogue in dialogues(Scope::TRAINING) {
        let mut heard = String::new();
        for exchange in &dialogue.exchanges {
            heard.push_str(&exchange.user);
            heard.push('\n');
            let compact: String = heard.replace(['×', 'x'], "*").replace('÷', "/").replace("divided by", "/");
            let compact = compact.replace("plus", "+").replace("minus", "-").replace("times", "*");
            let compact: String = compact.chars().filter(|c| !" ,".contains(*c)).collect();
            for call in &exchange.calls {
                let Json::Object(arguments) = &call.arguments else { panic!("{:?}", call.arguments) };
                for value in arguments.values() {
                    let text = value.as_str().map_or_else(|| dumps(value, Style::Default), str::to_owned);
                    let in_words = text.parse::<usize>().ok().and_then(|n| spoken.get(n.checked_sub(2)?));
                    let found = heard.contains(&text)
                        || compact.contains(&text)
                        || in_words.is_some_and(|word| heard.to_lowercase().contains(word))
                        || heard.to_lowercase().contains(&text)
                        || matches!(value, Json::Bool(_));
                    assert!(found, "{text:?} is not in {heard:?}");
                }
            }
        }
    }
}

#[test]
fn answers_say_every_value_of_the_results() {
    for scope in [Scope::TRAINING, Scope::HELD_OUT] {
        for exchange in dialogues(scope).flat_map(|dialogue| dialogue.exchanges) {
            for call in &exchange.calls {
                for value in &call.values {
                    assert!(says(&exchange.answer, value), "{value:?} is not in {:?}", exchange.answer);
                }
            }
        }
    }
}

#[test]
fn schemas_and_calls_fit_each_other() {
    for dialogue in dialogues(Scope::TRAINING) {
        let names: Vec<&str> = dialogue.tools.iter().map(|tool| tool.name().unwrap()).collect();
        assert!(names.iter().enumerate().all(|(i, name)| !names[..i].contains(name)), "{names:?}");
        for call in dialogue.exchanges.iter().flat_map(|exchange| &exchange.calls) {
            let tool = dialogue.tools.iter().find(|tool| tool.name() == Some(&call.name)).unwrap();
            check_call(tool.parameters().unwrap(), &call.arguments);
        }
    }
}

fn check_call(schema: &Json, arguments: &Json) {
    let Json::Object(arguments) = arguments else { panic!("{arguments:?}") };
    let Some(Json::Object(properties)) = schema.get("properties") else { panic!("{schema:?}") };
    let sorted: Vec<&String> = arguments.keys().collect();
    assert!(sorted.is_sorted(), "{sorted:?}: written in the order in which the turn format prints them");
    if let Some(Json::Array(required)) = schema.get("required") {
        assert!(
            required.iter().all(|key| arguments.contains_key(key.as_str().unwrap())),
            "{schema:?} {arguments:?}"
        );
    }
    for (key, value) in arguments {
        let property = &properties[key];
        let fits = match (property.get("type").and_then(Json::as_str), value) {
            (Some("string"), Json::String(_))
            | (Some("number"), Json::Number(_))
            | (Some("boolean"), Json::Bool(_)) => true,
            (Some("integer"), Json::Number(number)) => number.parse::<i64>().is_ok(),
            _ => false,
        };
        assert!(fits, "{key}: {property:?} {value:?}");
        if let Some(Json::Array(choices)) = property.get("enum") {
            assert!(choices.contains(value), "{choices:?} {value:?}");
        }
    }
}

#[test]
fn the_turn_format_takes_every_dialogue() {
    for dialogue in dialogues(Scope::HELD_OUT) {
        let options = RenderOptions { add_generation_prompt: false, ..RenderOptions::default() };
        let mut messages = dialogue.messages();
        let before = messages.clone();
        k2_chat::normalize(&mut messages);
        assert_eq!(messages, before, "ids are already as Moonshot's API would write them");
        let text = render(Template::K2Instruct, &messages, &dialogue.tools, options).unwrap().text;
        assert!(!text.contains(['{', '}']) || !text.contains("{x}"), "{text}");
        for exchange in &dialogue.exchanges {
            assert!(slots(&exchange.user).all(|slot| !is_slot(slot)), "{}", exchange.user);
            assert!(slots(&exchange.answer).all(|slot| !is_slot(slot)), "{}", exchange.answer);
            assert!(!exchange.user.contains("(") || exchange.user.contains(")"), "{}", exchange.user);
            assert!(!exchange.user.contains('|'), "{}", exchange.user);
        }
    }
}

/// JSON in a drill is no slot.
fn is_slot(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'2')
}

#[test]
fn cases_test_what_they_say() {
    let generator = generator();
    for (topic, calls) in [
        (Topic::Call, 1..=1),
        (Topic::Chinese, 1..=1),
        (Topic::TwoCalls, 2..=2),
        (Topic::NoTool, 0..=0),
        (Topic::Talk, 0..=0),
        (Topic::Identity, 0..=0),
        (Topic::Tools, 0..=0),
    ] {
        for tools in [Part::Seen, Part::HeldOut] {
            let scope = Scope { tools, ..Scope::HELD_OUT };
            for index in 0..200 {
                let case = generator.case(scope, topic, index);
                assert_eq!(case.exchanges.len(), 1);
                assert!(calls.contains(&case.exchanges[0].calls.len()), "{topic:?}");
                assert!((1..=4).contains(&case.tools.len()));
            }
        }
    }
}

#[test]
fn small_sets_are_not_split() {
    for (kind, split) in [
        (ValueType::City, true),
        (ValueType::Expression, true),
        (ValueType::Quantity, true),
        (ValueType::Language, false),
        (ValueType::TinyNumber, false),
        (ValueType::OnOff, false),
    ] {
        assert_eq!(kind.has_held_out_values(), split, "{kind:?}");
    }
}

/// What JSON Schema says of the keywords that `schemas` uses.
fn fits(root: &Json, schema: &Json, value: &Json) -> bool {
    if let Some(reference) = schema.get("$ref").and_then(Json::as_str) {
        let name = reference.strip_prefix("#/$defs/").unwrap();
        return fits(root, root.get("$defs").and_then(|all| all.get(name)).unwrap(), value);
    }
    if let Some(Json::Array(forms)) = schema.get("anyOf") {
        return forms.iter().any(|form| fits(root, form, value));
    }
    let bound = |key| schema.get(key).and_then(|bound| dumps(bound, Style::Default).parse::<f64>().ok());
    let at_least = |key, found: f64| bound(key).is_none_or(|least| found >= least);
    let at_most = |key, found: f64| bound(key).is_none_or(|most| found <= most);
    let list = |key| match schema.get(key) {
        Some(Json::Array(items)) => Some(items),
        _ => None,
    };
    let of_type = match (schema.get("type").and_then(Json::as_str), value) {
        (None, _) | (Some("boolean"), Json::Bool(_)) | (Some("null"), Json::Null) => true,
        (Some("string"), Json::String(text)) => {
            let length = text.chars().count() as f64;
            at_least("minLength", length) && at_most("maxLength", length)
        }
        (Some("integer"), Json::Number(number)) => number.parse::<i64>().is_ok(),
        (Some("number"), Json::Number(_)) => true,
        (Some("array"), Json::Array(items)) => {
            at_least("minItems", items.len() as f64)
                && items.iter().all(|item| fits(root, schema.get("items").unwrap(), item))
        }
        (Some("object"), Json::Object(members)) => {
            let empty = Json::Object(Default::default());
            let properties = schema.get("properties").unwrap_or(&empty);
            let required = |name: &Json| members.contains_key(name.as_str().unwrap());
            members
                .iter()
                .all(|(name, value)| properties.get(name).is_some_and(|form| fits(root, form, value)))
                && list("required").is_none_or(|all| all.iter().all(required))
        }
        _ => false,
    };
    let number = match value {
        Json::Number(number) => number.parse().unwrap(),
        _ => 0.0,
    };
    of_type
        && at_least("minimum", number)
        && at_most("maximum", number)
        && schema.get("const").is_none_or(|only| only == value)
        && list("enum").is_none_or(|choices| choices.contains(value))
}

/// The plainest arguments are valid ones, and what the request says stands in them.
#[test]
fn arguments_of_every_schema_are_valid_and_short() {
    let (generator, mut empty) = (generator(), 0);
    for index in 0..MANY {
        let dialogue = generator.schema(index);
        let (tool, call) = (&dialogue.tools[0], &dialogue.exchanges[0].calls[0]);
        let schema = Json::Object(match tool.parameters().unwrap() {
            Json::Object(schema) => schema.clone(),
            other => panic!("{other:?}"),
        });
        let said = dumps(&call.arguments, Style::Default);
        assert!(fits(&schema, &schema, &call.arguments), "{said} under {}", dumps(&schema, Style::Default));
        assert!(said.len() < 700, "{said}");
        empty += usize::from(said == "{}");
    }
    assert!(empty * 2 < MANY as usize, "{empty} of {MANY} have no arguments");
}
