//! `k2 chat`: a conversation in the terminal.

mod shown;
mod tools;

use std::error::Error;
use std::io::{self, BufRead, IsTerminal};
use std::sync::{Arc, Mutex, PoisonError};

use clap::Args;
use k2_chat::grammar::{Calls, ContentForm, GrammarCompiler, Reasoning, Wanted};
use k2_chat::message::Role;
use k2_chat::normalize::count_calls;
use k2_chat::python_json::Style;
use k2_chat::tool_calls::{Markers, ReplyCall};
use k2_chat::{
    EndReason, Message, ParserOptions, RenderOptions, Reply, Template, Tokenizer, ToolCallParser, normalize,
    render,
};
use k2_engine::{Canceller, Engine, EngineOptions, Event, FinishReason, Grammar, Request};
use k2_server::Followed;

use crate::model::{self, ModelArgs, TemplateArgs, TokenizerArgs, answer_markers, masked_ids};
use crate::sampling::SamplingArgs;
use shown::Shown;
use tools::{ToolArgs, Tools};

const WELCOME: &str = "Ctrl-C stops an answer, /clear begins anew, /exit or Ctrl-D ends.";

/// Calls in a row before an answer must come.
const MOST_ROUNDS: usize = 8;

/// Talk to a model in the terminal.
#[derive(Debug, Args)]
pub(crate) struct ChatArgs {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    tokenizer: TokenizerArgs,
    #[command(flatten)]
    template: TemplateArgs,
    /// Ask this alone and end, in place of a conversation.
    #[arg(short, long, value_name = "TEXT", allow_hyphen_values = true)]
    prompt: Option<String>,
    /// System prompt [default: the turn format's own].
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    system: Option<String>,
    /// Ask for answers without reasoning; turn format k2.5 only.
    #[arg(long)]
    no_thinking: bool,
    /// Most tokens of an answer [default: what the context has room for].
    #[arg(long, value_name = "N")]
    max_tokens: Option<usize>,
    #[command(flatten)]
    tools: ToolArgs,
    #[command(flatten)]
    sampling: SamplingArgs,
}

/// Runs the command.
pub(crate) fn run(args: &ChatArgs) -> Result<(), Box<dyn Error>> {
    let _log = model::warnings()?;
    let model = args.model.open()?;
    let tokenizer = model.tokenizer(&args.tokenizer)?;
    let template = model.template(&args.template, &args.tokenizer)?;
    if args.no_thinking && !template.form().prompts_thinking {
        return Err(format!("--no-thinking: the turn format {} has no such choice", template.name()).into());
    }
    let tools = args.tools.tools(model.is_embedded())?;
    let stop_ids = model.stop_ids(&tokenizer);
    let grammar = grammar(&tools, template, &tokenizer, &stop_ids, !args.no_thinking)?;
    let answers = answer_markers(&tokenizer);
    let engine = model.start(EngineOptions { answers, ..EngineOptions::default() })?;
    let request = Request {
        max_tokens: args.max_tokens.unwrap_or(usize::MAX),
        sampling: args.sampling.sampling(),
        stop_ids,
        grammar,
        masked_ids: masked_ids(&tokenizer, &engine),
        ..Request::default()
    };
    let running = Running::default();
    let on_interrupt = running.clone();
    ctrlc::set_handler(move || on_interrupt.interrupt())?;
    let system: Vec<_> = args.system.iter().map(|text| Message::text(Role::System, text)).collect();
    let options = RenderOptions { add_generation_prompt: true, thinking: !args.no_thinking };
    let messages = system.clone();
    let talked = engine.clone();
    let mut conversation =
        Conversation { tokenizer, template, engine, tools, request, options, system, messages, running };
    match &args.prompt {
        Some(text) => conversation.turn(text)??,
        None => conversation.talk()?,
    }
    model::flush(&talked);
    Ok(())
}

/// The grammar of the tools' calls; none without tools.
fn grammar(
    tools: &Tools,
    template: Template,
    tokenizer: &Tokenizer,
    stop_ids: &[u32],
    thinking: bool,
) -> Result<Option<Arc<dyn Grammar>>, Box<dyn Error>> {
    if tools.declared.is_empty() {
        return Ok(None);
    }
    let form = template.form();
    let sorted = form.tools == Style::CompactSorted;
    let calls = Some(Calls { tools: &tools.declared, only: None, parallel: true, sorted });
    let wanted = Wanted { calls, content: ContentForm::Free, reasoning: Reasoning::of(form, thinking) };
    let compiled = GrammarCompiler::new(tokenizer, stop_ids)?.compile(wanted)?;
    Ok(compiled.map(|grammar| Arc::new(Followed(grammar)) as Arc<dyn Grammar>))
}

/// The request that Ctrl-C stops.
#[derive(Clone, Default)]
struct Running(Arc<Mutex<Option<Canceller>>>);

impl Running {
    fn set(&self, canceller: Option<Canceller>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = canceller;
    }

    fn interrupt(&self) {
        match self.0.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
            Some(canceller) => canceller.cancel(),
            None => eprintln!("\n{WELCOME}"),
        }
    }
}

struct Conversation {
    tokenizer: Tokenizer,
    template: Template,
    engine: Engine,
    tools: Tools,
    /// What all requests have in common.
    request: Request,
    options: RenderOptions,
    system: Vec<Message>,
    messages: Vec<Message>,
    running: Running,
}

impl Conversation {
    /// Line after line until the input ends.
    fn talk(&mut self) -> Result<(), Box<dyn Error>> {
        let interactive = io::stdin().is_terminal();
        if interactive {
            eprintln!("{WELCOME}");
        }
        loop {
            if interactive {
                eprint!("> ");
            }
            let mut line = String::new();
            if io::stdin().lock().read_line(&mut line)? == 0 {
                return Ok(());
            }
            match line.trim() {
                "" => {}
                "/exit" => return Ok(()),
                "/clear" => self.messages.clone_from(&self.system),
                text => {
                    if let Err(why) = self.turn(text)? {
                        eprintln!("error: {why}");
                    }
                }
            }
        }
    }

    /// One question and its answer, with what is called in between. The inner error says why there is no answer; then
    /// the question is forgotten.
    fn turn(&mut self, text: &str) -> Result<Result<(), String>, Box<dyn Error>> {
        let before = self.messages.len();
        self.messages.push(Message::text(Role::User, text));
        let answered = self.rounds()?;
        if answered.is_err() {
            self.messages.truncate(before);
        }
        Ok(answered)
    }

    fn rounds(&mut self) -> Result<Result<(), String>, Box<dyn Error>> {
        for _ in 0..MOST_ROUNDS {
            let reply = match self.answer()? {
                Ok(reply) => reply,
                Err(why) => return Ok(Err(why)),
            };
            self.messages.push(Message::from(&reply));
            if reply.tool_calls.is_empty() {
                return Ok(Ok(()));
            }
            if !self.call(&reply.tool_calls)? {
                return Ok(Err("the input ended before a result was typed".into()));
            }
        }
        Ok(Err(format!("no answer after {MOST_ROUNDS} rounds of calls")))
    }

    /// Makes the calls. Says whether all have a result.
    fn call(&mut self, calls: &[ReplyCall]) -> Result<bool, Box<dyn Error>> {
        for call in calls {
            shown::call(call)?;
            let Some(result) = self.tools.result(call)? else { return Ok(false) };
            shown::result(&result)?;
            let id = Some(call.id.clone());
            self.messages.push(Message { tool_call_id: id, ..Message::text(Role::Tool, result) });
        }
        Ok(true)
    }

    fn answer(&mut self) -> Result<Result<Reply, String>, Box<dyn Error>> {
        let mut messages = self.messages.clone();
        normalize(&mut messages);
        let prompt =
            render(self.template, &messages, &self.tools.declared, self.options)?.ids(&self.tokenizer);
        self.request.sampling.seed = self.request.sampling.seed.wrapping_add(1);
        let mut events = match self.engine.submit(Request { prompt, ..self.request.clone() }) {
            Ok(events) => events,
            Err(error) => return Ok(Err(error.to_string())),
        };
        self.running.set(Some(events.canceller()));
        let mut parser = ToolCallParser::new(self.parser_options(), Markers::of(&self.tokenizer));
        let mut shown = Shown::default();
        let reason = loop {
            match events.blocking_recv() {
                Some(Event::Token { id, .. }) => shown.add(parser.push_token(&self.tokenizer, id)?)?,
                Some(Event::Finished { reason, .. }) => break reason,
                Some(Event::Prefill { .. } | Event::PromptLogits { .. } | Event::PromptLogprobs { .. }) => {}
                None => break FinishReason::Failed("the engine has stopped".into()),
            }
        };
        self.running.set(None);
        let finished = parser.finish(EndReason::EndOfTurn);
        shown.add(finished.deltas)?;
        shown.end(&reason)?;
        let silent = shown.reply.content.as_deref().is_none_or(str::is_empty);
        match reason {
            FinishReason::Failed(why) => Ok(Err(why)),
            FinishReason::Stop(_) => Ok(Ok(shown.reply)),
            FinishReason::Length if silent => {
                Ok(Err("the answer was cut off before it said anything".into()))
            }
            // A prompt that took too long to read is not to be read again with the next question.
            FinishReason::Cancelled if silent => Ok(Err("stopped before it said anything".into())),
            // A call may have been cut off: none is made.
            FinishReason::Length | FinishReason::Cancelled => {
                Ok(Ok(Reply { tool_calls: Vec::new(), ..shown.reply }))
            }
        }
    }

    fn parser_options(&self) -> ParserOptions {
        let form = self.template.form();
        ParserOptions {
            thinking: form.thinking,
            think_prefilled: form.prompts_thinking && self.options.thinking,
            calls: !self.tools.declared.is_empty(),
            history_calls: count_calls(&self.messages),
            ..ParserOptions::with_tools(&self.tools.declared)
        }
    }
}
