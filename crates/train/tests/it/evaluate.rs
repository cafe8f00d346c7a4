//! The evaluation counts what is right as right, and nothing else.

use k2_chat::grammar::{Calls, ContentForm, Progress, Reasoning, Wanted, may_come};
use k2_chat::tool_calls::ReplyCall;
use k2_chat::{
    FinishReason, GrammarCompiler, Message, RenderOptions, Reply, Role, Template, Tokenizer, Tool, render,
};
use k2_kernels::Pool;
use k2_model::KimiK2;
use k2_train::dialogues::{Dialogue, Generator};
use k2_train::evaluate::{
    CELLS, Cell, EvaluateError, Rate, Report, baseline, evaluate, evaluate_cell, greedy, of_model, says,
    wilson,
};
use k2_weights::Checkpoint;
use std::convert::Infallible;
use std::path::Path;

use crate::bpe::tokenizer;

/// Answers a case as it should be.
fn right(case: &Dialogue, messages: &[Message]) -> Reply {
    let exchange = &case.exchanges[0];
    let answered = messages.last().is_some_and(|message| message.role == Role::Tool);
    if exchange.calls.is_empty() || answered {
        return Reply { content: Some(exchange.answer.clone()), ..Reply::default() };
    }
    let calls = case.messages().into_iter().find_map(|message| message.tool_calls).unwrap();
    let calls = calls.into_iter().map(|call| ReplyCall {
        id: call.id.unwrap(),
        name: call.function.name,
        arguments: call.function.arguments.unwrap().as_str().unwrap().to_owned(),
    });
    Reply { tool_calls: calls.collect(), finish_reason: FinishReason::ToolCalls, ..Reply::default() }
}

/// Evaluates a cell with an answerer that knows the cases and changes the right reply.
fn with(cell: &Cell, change: impl Fn(&mut Reply, bool)) -> Report {
    let generator = Generator::new(99).unwrap();
    let cases = cell.cases(&generator, 40);
    assert_eq!(cases.len(), 40, "{}", cell.name);
    let mut answer = |messages: &[Message], tools: &[Tool]| {
        let asked = |case: &&Dialogue| case.tools == tools && messages.starts_with(&case.asked(0));
        let mut reply = right(cases.iter().find(asked).unwrap(), messages);
        change(&mut reply, messages.last().is_some_and(|message| message.role == Role::Tool));
        Ok(reply)
    };
    Report { cells: vec![evaluate_cell(cell.name, &cases, &mut answer).unwrap()] }
}

#[test]
fn who_is_always_right_gets_all() {
    for cell in &CELLS {
        let report = with(cell, |_, _| {});
        let found = &report.cells[0];
        assert_eq!((found.end_to_end.right, found.end_to_end.of), (40, 40), "{report}");
        assert!(found.failures.is_empty());
    }
}

#[test]
fn each_way_of_being_wrong_is_counted_where_it_belongs() {
    let call = &CELLS[2];
    let shares = |report: &Report| {
        let cell = &report.cells[0];
        [cell.syntax, cell.tool, cell.arguments, cell.answer].map(|rate| rate.right)
    };
    let calls = |change: fn(&mut ReplyCall)| {
        move |reply: &mut Reply, _: bool| reply.tool_calls.iter_mut().for_each(change)
    };
    assert_eq!(shares(&with(call, calls(|call| call.arguments.push('}')))), [0, 0, 0, 0]);
    assert_eq!(shares(&with(call, calls(|call| call.name.push('x')))), [40, 0, 0, 0]);
    assert_eq!(shares(&with(call, calls(|call| call.arguments = r#"{"no": 1}"#.to_owned()))), [40, 40, 0, 0]);
    let silent = with(call, |reply, answered| {
        if answered {
            reply.content = Some(String::new());
        }
    });
    assert_eq!(shares(&silent), [40, 40, 40, 0]);
    assert_eq!(silent.cells[0].failures.len(), 20, "only so many are kept");
    let run_together = with(call, |reply, answered| {
        if answered {
            reply.content = reply.content.take().map(|content| content.replace(' ', "7"));
        }
    });
    assert_eq!(shares(&run_together), [40, 40, 40, 0]);
    let no_call = &CELLS[5];
    let calling = with(no_call, |reply, _| reply.finish_reason = FinishReason::ToolCalls);
    assert_eq!(calling.cells[0].end_to_end.right, 0);
    let cut_off = with(no_call, |reply, _| reply.finish_reason = FinishReason::Length);
    assert_eq!(cut_off.cells[0].end_to_end.right, 0);
}

#[test]
fn a_part_of_a_value_does_not_say_it() {
    for (text, value, is_said) in [
        ("The count is 5.", "5", true),
        ("The count is 15.", "5", false),
        ("The count is 50.", "5", false),
        ("The count is 5.5.", "5", false),
        ("The count is 1.5.", "5", false),
        ("The count is -5.", "5", false),
        ("The count is -5.", "-5", true),
        ("15 and 5", "5", true),
        ("Done: version 1.2.3.", "1.2.3", true),
        ("I found: /data/ada, \"Lisbon\".", "/data/ada", true),
        ("I found: /data/ada, \"Lisbon\".", "Lisbon", true),
        ("It is in Lisbon.", "Lis", false),
        ("It is +49 30.", "+49", true),
    ] {
        assert_eq!(says(text, value), is_said, "{value:?} in {text:?}");
    }
}

#[test]
fn numbers_are_compared_by_value_and_keys_in_any_order() {
    let converts =
        |case: &Dialogue| case.exchanges[0].calls.iter().any(|call| call.arguments.get("value").is_some());
    let generator = Generator::new(99).unwrap();
    let cases: Vec<Dialogue> = CELLS[0].cases(&generator, 400).into_iter().filter(converts).collect();
    assert!(!cases.is_empty());
    let mut answer = |messages: &[Message], tools: &[Tool]| {
        let asked = |case: &&Dialogue| case.tools == tools && messages.starts_with(&case.asked(0));
        let mut reply = right(cases.iter().find(asked).unwrap(), messages);
        for call in &mut reply.tool_calls {
            let arguments: serde_json::Value = serde_json::from_str(&call.arguments).unwrap();
            let mut members: Vec<_> = arguments.as_object().unwrap().clone().into_iter().collect();
            members.reverse();
            let floats =
                |value: serde_json::Value| value.as_f64().map_or(value.clone(), |number| number.into());
            let members: serde_json::Map<_, _> =
                members.into_iter().map(|(key, value)| (key, floats(value))).collect();
            call.arguments = serde_json::Value::Object(members).to_string();
        }
        Ok(reply)
    };
    let report = evaluate_cell("values", &cases, &mut answer).unwrap();
    assert_eq!(report.end_to_end.right, cases.len(), "{:?}", report.failures.first());
}

#[test]
fn a_model_is_asked_in_ids_and_answers_in_ids() {
    let (tokenizer, generator) = (tokenizer(), Generator::new(99).unwrap());
    let cases = CELLS[2].cases(&generator, 10);
    let mut prompts = Vec::new();
    let report = {
        let mut replies = cases.iter().flat_map(|case| {
            let calls = case.messages().into_iter().find_map(|message| message.tool_calls).unwrap();
            let call = &calls[0];
            let text = format!(
                "<|tool_calls_section_begin|><|tool_call_begin|>{}<|tool_call_argument_begin|>{}<|tool_call_end|><|tool_calls_section_end|><|im_end|>",
                call.id.as_deref().unwrap(),
                call.function.arguments.as_ref().unwrap().as_str().unwrap()
            );
            [text, format!("{}<|im_end|>", case.exchanges[0].answer)]
        });
        let mut answer = of_model(&tokenizer, Template::K2Instruct, None, |prompt, progress| {
            assert!(progress.is_none());
            prompts.push(prompt.to_vec());
            Ok::<_, Infallible>(tokenizer.encode(&replies.next().unwrap(), true))
        });
        evaluate_cell("model", &cases, &mut answer).unwrap()
    };
    assert_eq!(report.end_to_end.right, 10, "{:?}", report.failures.first());
    assert_eq!(prompts.len(), 20);
    let second = tokenizer.decode(&prompts[1]).unwrap();
    assert!(
        second.contains("## Return of functions.")
            && second.ends_with("<|im_assistant|>assistant<|im_middle|>")
    );
    let mut endless = of_model(&tokenizer, Template::K2Instruct, None, |_, _| {
        Ok::<_, Infallible>(tokenizer.encode("and so on", false))
    });
    assert_eq!(evaluate_cell("cut", &cases, &mut endless).unwrap().end_to_end.right, 0);
    let mut broken =
        of_model(&tokenizer, Template::K2Instruct, None, |_, _| Ok::<_, Infallible>(vec![u32::MAX]));
    assert!(matches!(evaluate_cell("ids", &cases, &mut broken), Err(EvaluateError::Token(_))));
}

/// How many of these tokens may come one after the other.
fn followed(progress: &mut Progress, ids: &[u32]) -> usize {
    let mut follows = |id: &u32| may_come(progress.allowed().unwrap(), *id) && progress.accept(*id).is_ok();
    ids.iter().take_while(|id| follows(id)).count()
}

#[test]
fn under_a_grammar_right_calls_may_come_and_others_may_not() {
    let (tokenizer, generator) = (tokenizer(), Generator::new(99).unwrap());
    let stop = tokenizer.stop_ids(&[]);
    let grammars = GrammarCompiler::new(&tokenizer, &stop).unwrap();
    for case in CELLS[2].cases(&generator, 10) {
        let calls = case.messages().into_iter().find_map(|message| message.tool_calls).unwrap();
        let (id, arguments) =
            (calls[0].id.as_deref().unwrap(), calls[0].function.arguments.as_ref().unwrap());
        let call = |arguments: &str| {
            let text = format!(
                "<|tool_calls_section_begin|><|tool_call_begin|>{id}<|tool_call_argument_begin|>{arguments}<|tool_call_end|><|tool_calls_section_end|>"
            );
            tokenizer.encode(&text, true)
        };
        let arguments = arguments.as_str().unwrap();
        let (right, wrong) = (call(arguments), call(&arguments.replacen("{\"", "{\"no_such_key_", 1)));
        let mut answer = of_model(&tokenizer, Template::K2Instruct, Some(&grammars), |_, progress| {
            let mut progress = progress.unwrap();
            assert_eq!(followed(&mut progress, &right), right.len(), "{arguments}");
            Ok::<_, Infallible>(stop.clone())
        });
        answer(&case.asked(0), &case.tools).unwrap();
        let mut answer = of_model(&tokenizer, Template::K2Instruct, Some(&grammars), |_, progress| {
            assert!(followed(&mut progress.unwrap(), &wrong) < wrong.len(), "{arguments}");
            Ok::<_, Infallible>(stop.clone())
        });
        answer(&case.asked(0), &case.tools).unwrap();
    }
}

#[test]
fn greedy_chooses_among_what_the_grammar_lets_come() {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/tiny"));
    let tokenizer = Tokenizer::from_dir(folder).unwrap();
    let checkpoint = Checkpoint::open(folder, &mut |_| ()).unwrap();
    let model = KimiK2::load(&checkpoint, Pool::new(2), &mut |_, _| ()).unwrap();
    let stop = tokenizer.stop_ids(&[]);
    let case = &CELLS[2].cases(&Generator::new(99).unwrap(), 1)[0];
    let prompt = render(
        Template::K2Instruct,
        &[Message::text(Role::User, "Hello!")],
        &case.tools,
        RenderOptions::default(),
    )
    .unwrap()
    .ids(&tokenizer);
    let mut generate = greedy(&model, &stop, 200);
    let free = tokenizer.decode(&generate(&prompt, None).unwrap()).unwrap();
    assert!(!free.contains("<|tool_call_begin|>"), "{free}");
    let grammars = GrammarCompiler::new(&tokenizer, &stop).unwrap();
    let calls = Some(Calls { tools: &case.tools, only: Some(0), parallel: false, sorted: false });
    let wanted = Wanted { calls, content: ContentForm::Nothing, reasoning: Reasoning::Never };
    let progress = grammars.compile(wanted).unwrap().unwrap().start();
    let held = tokenizer.decode(&generate(&prompt, Some(progress)).unwrap()).unwrap();
    let name = case.tools[0].name().unwrap();
    assert!(held.contains(&format!("<|tool_call_begin|>functions.{name}:0")), "{held}");
}

#[test]
fn the_program_of_keywords_is_neither_useless_nor_good() {
    let generator = Generator::new(99).unwrap();
    let mut seen = 0;
    let report = evaluate(&CELLS, &generator, 100, &mut baseline::answer, &mut |_| seen += 1).unwrap();
    assert_eq!(seen, CELLS.len());
    let share = |cell: usize| report.cells[cell].end_to_end.share;
    assert!(report.cells[0].tool.share > 0.5, "{report}");
    assert!(share(0) > 0.05 && share(0) < 0.8, "{report}");
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["cells"][2]["name"], "held-out phrase and value");
}

#[test]
fn intervals_are_wilsons() {
    // Values of R's prop.test(correct = FALSE).
    for (right, of, low, high) in
        [(0, 10, 0.0, 0.2775), (5, 10, 0.2366, 0.7634), (95, 100, 0.8882, 0.9785), (500, 500, 0.9924, 1.0)]
    {
        let found = wilson(right, of);
        assert!((found.0 - low).abs() < 1e-4 && (found.1 - high).abs() < 1e-4, "{right}/{of}: {found:?}");
    }
    assert_eq!(wilson(0, 0), (0.0, 1.0));
    assert_eq!(Rate::new(95, 100).to_string(), " 95.0 [88.8,  97.8]");
}
