//! Runs a recipe: `cargo run --release -p k2-train --example train_recipe -- RECIPE.toml [--resume]`.

use k2_train::progress::Bar;
use k2_train::recipe::Overrides;
use k2_train::{Recipe, run};
use std::ops::ControlFlow;
use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let path = arguments.first().ok_or("give the path of a recipe")?;
    let resume = arguments.iter().any(|argument| argument == "--resume");
    let recipe = Recipe::read(Path::new(path), Overrides::default())?;
    let mut bar = Bar::new(recipe.schedule.steps);
    let last = run(&recipe, resume, &mut |event| {
        bar.show(event);
        ControlFlow::Continue(())
    })?;
    println!("{}", last.display());
    Ok(())
}
