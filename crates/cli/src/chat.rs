//! `k2 chat`: a conversation in the terminal.

mod shown;

use std::error::Error;
use std::io::{self, BufRead, IsTerminal};
use std::sync::{Arc, Mutex, PoisonError};

use clap::Args;
use k2_chat::message::Role;
use k2_chat::tool_calls::Markers;
use k2_chat::{
    EndReason, Message, ParserOptions, RenderOptions, Reply, Template, Tokenizer, ToolCallParser, render,
};
use k2_engine::{Canceller, Engine, EngineOptions, Event, FinishReason, Request};

use crate::model::{self, ModelArgs, TemplateArgs, TokenizerArgs, masked_ids};
use crate::sampling::SamplingArgs;
use shown::Shown;

const WELCOME: &str = "Ctrl-C stops an answer, /clear begins anew, /exit or Ctrl-D ends.";

/// Talk to a model in the terminal.
#[derive(Debug, Args)]
pub(crate) struct ChatArgs {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    tokenizer: TokenizerArgs,
    #[command(flatten)]
    template: TemplateArgs,
    /// System prompt [default: the turn format's own].
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    /// Ask for answers without reasoning; turn format k2.5 only.
    #[arg(long)]
    no_thinking: bool,
    /// Most tokens of an answer [default: what the context has room for].
    #[arg(long, value_name = "N")]
    max_tokens: Option<usize>,
    #[command(flatten)]
    sampling: SamplingArgs,
}

/// Runs the command.
pub(crate) fn run(args: &ChatArgs) -> Result<(), Box<dyn Error>> {
    let model = args.model.open()?;
    let tokenizer = model.tokenizer(&args.tokenizer)?;
    let template = model.template(&args.template, &args.tokenizer)?;
    if args.no_thinking && !template.form().prompts_thinking {
        return Err(format!("--no-thinking: the turn format {} has no such choice", template.name()).into());
    }
    let engine = model.start(EngineOptions::default())?;
    let request = Request {
        max_tokens: args.max_tokens.unwrap_or(usize::MAX),
        sampling: args.sampling.sampling(),
        stop_ids: model.stop_ids(&tokenizer),
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
    Conversation { tokenizer, template, engine, request, options, system, messages, running }.talk()?;
    model::flush(&talked);
    Ok(())
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
    /// What all requests have in common.
    request: Request,
    options: RenderOptions,
    system: Vec<Message>,
    messages: Vec<Message>,
    running: Running,
}

impl Conversation {
    /// Line after line until the input ends.
    fn talk(mut self) -> Result<(), Box<dyn Error>> {
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
                text => self.turn(text)?,
            }
        }
    }

    /// One question and its answer. What cannot be answered is said and forgotten.
    fn turn(&mut self, text: &str) -> Result<(), Box<dyn Error>> {
        self.messages.push(Message::text(Role::User, text));
        match self.answer()? {
            Ok(reply) => self.messages.push(Message {
                reasoning_content: reply.reasoning_content,
                ..Message::text(Role::Assistant, reply.content.unwrap_or_default())
            }),
            Err(why) => {
                self.messages.pop();
                eprintln!("error: {why}");
            }
        }
        Ok(())
    }

    fn answer(&mut self) -> Result<Result<Reply, String>, Box<dyn Error>> {
        let prompt = render(self.template, &self.messages, &[], self.options)?.ids(&self.tokenizer);
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
        match reason {
            FinishReason::Failed(why) => Ok(Err(why)),
            _ => Ok(Ok(shown.reply)),
        }
    }

    fn parser_options(&self) -> ParserOptions {
        let form = self.template.form();
        ParserOptions {
            thinking: form.thinking,
            think_prefilled: form.prompts_thinking && self.options.thinking,
            ..ParserOptions::default()
        }
    }
}
