//! The demo's live screen: the stores, what they sell, what answers lack, and what happens.

use std::{
    collections::BTreeMap,
    io::{IsTerminal, Write},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use comfy_table::{Cell, ContentArrangement, Table, presets::NOTHING};
use rollcall_types::Timestamp;
use serde_json::Value;

use crate::{
    client::Client,
    show::{RollLine, colour},
};

/// How often the screen is drawn.
const EVERY: Duration = Duration::from_secs(1);
/// Lines of the story that stay on the screen.
const SHOWN: usize = 7;
/// Lines of a mail that are shown.
const MAIL_LINES: usize = 6;
/// Another screen of the terminal, and back: what was there before is there again afterwards.
const ENTER: &str = "\u{1b}[?1049h\u{1b}[?25l";
const LEAVE: &str = "\u{1b}[?25h\u{1b}[?1049l";

/// What happened so far. On a terminal it is drawn; elsewhere it is printed line by line.
pub(super) struct Feed {
    begun: Instant,
    is_live: bool,
    said: Mutex<Said>,
}

#[derive(Default)]
struct Said {
    lines: Vec<String>,
    mail: Vec<String>,
    to_try: Vec<String>,
    is_drawn: bool,
    is_told: bool,
    has_ended: bool,
}

impl Feed {
    pub(super) fn new(plain: bool) -> Arc<Self> {
        let is_live = !plain && std::io::stdout().is_terminal();
        Arc::new(Self { begun: Instant::now(), is_live, said: Mutex::default() })
    }

    fn known(&self) -> MutexGuard<'_, Said> {
        // Each part is whole whatever became of whoever held it.
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn say(&self, text: impl Into<String>) {
        let at = self.begun.elapsed().as_secs();
        let line = format!("{}:{:02}  {}", at / 60, at % 60, text.into());
        if !self.is_live {
            outln!("{line}");
        }
        self.known().lines.push(line);
    }

    pub(super) fn mail(&self, subject: &str, text: &str) {
        let lines = text.lines().filter(|line| !line.trim().is_empty()).take(MAIL_LINES).map(str::to_owned);
        let mail: Vec<String> =
            std::iter::once(format!("Mail to desk@contoso.example: {subject}")).chain(lines).collect();
        if !self.is_live {
            mail.iter().for_each(|line| outln!("      | {line}"));
        }
        self.known().mail = mail;
    }

    pub(super) fn try_these(&self, lines: Vec<String>) {
        if !self.is_live {
            eprintln!("In another terminal, try:");
            lines.iter().for_each(|line| eprintln!("  {line}"));
        }
        self.known().to_try = lines;
    }

    /// The story is over.
    pub(super) fn is_told(&self) {
        self.known().is_told = true;
    }

    /// Gives the terminal back, with the story on it.
    pub(super) fn end(&self) {
        let mut known = self.known();
        known.has_ended = true;
        if std::mem::take(&mut known.is_drawn) {
            // A terminal that is gone needs nothing.
            let _ = write!(std::io::stdout(), "{LEAVE}").and_then(|()| std::io::stdout().flush());
            known.lines.iter().for_each(|line| outln!("{line}"));
        }
    }
}

/// Draws until it is dropped; where there is no terminal, prints the numbers now and then.
pub(super) async fn draw(client: Arc<Client>, feed: Arc<Feed>) -> anyhow::Result<()> {
    const PRINT_EVERY: u64 = 20;
    let mut before: BTreeMap<String, u64> = BTreeMap::new();
    let mut looks = 0;
    loop {
        let (client, is_live) = (client.clone(), feed.is_live);
        let now = tokio::task::spawn_blocking(move || Now::ask(&client)).await??;
        looks += 1;
        if is_live {
            let frame = now.frame(&feed.known(), &before);
            let mut known = feed.known();
            let enter = if std::mem::replace(&mut known.is_drawn, true) { "" } else { ENTER };
            if !known.has_ended {
                let mut out = std::io::stdout().lock();
                write!(out, "{enter}\u{1b}[H{}\u{1b}[J", frame.replace('\n', "\u{1b}[K\r\n"))?;
                out.flush()?;
            }
        } else if looks % PRINT_EVERY == 1 {
            outln!("      {}", now.answer());
        }
        before = now.sold;
        tokio::time::sleep(EVERY).await;
    }
}

/// Prints the numbers as they are now, where there is no terminal that shows them all along.
pub(super) async fn print_numbers(client: &Arc<Client>, feed: &Feed) -> anyhow::Result<()> {
    if !feed.is_live {
        let client = client.clone();
        let now = tokio::task::spawn_blocking(move || Now::ask(&client)).await??;
        outln!("      {}", now.answer());
    }
    Ok(())
}

/// What HQ says at one moment.
struct Now {
    roll: Vec<RollLine>,
    /// Sales by store.
    sold: BTreeMap<String, u64>,
    turnover: f64,
    coverage: String,
}

impl Now {
    fn ask(client: &Client) -> anyhow::Result<Self> {
        let roll = serde_json::from_str(&client.get("/api/roll")?)?;
        let (_, coverage) = client.sql("SELECT count(*), sum(qty*price) FROM sales", "json")?;
        let by_store = "SELECT _site, count(*) AS n, CAST(sum(qty*price) AS DOUBLE) AS t FROM sales GROUP BY 1";
        let (body, _) = client.sql(by_store, "json")?;
        let answer: Value = serde_json::from_slice(&body)?;
        let rows = answer["rows"].as_array().cloned().unwrap_or_default();
        let sold = rows.iter().filter_map(|row| Some((row["_site"].as_str()?.to_owned(), row["n"].as_u64()?)));
        let turnover = rows.iter().filter_map(|row| row["t"].as_f64()).sum::<f64>() + 0.0;
        Ok(Self { roll, sold: sold.collect(), turnover, coverage })
    }

    fn answer(&self) -> String {
        let sales: u64 = self.sold.values().sum();
        format!("{sales} sales, {:.2}; coverage: {}", self.turnover, self.coverage)
    }

    fn frame(&self, said: &Said, before: &BTreeMap<String, u64>) -> String {
        let mut table = Table::new();
        table.load_preset(NOTHING).set_content_arrangement(ContentArrangement::Dynamic).force_no_tty();
        table.set_header(["store", "state", "sales at HQ", "new", "complete through", "why"]);
        for line in &self.roll {
            let sold = self.sold.get(line.site.as_str()).copied().unwrap_or_default();
            let new = sold.saturating_sub(before.get(line.site.as_str()).copied().unwrap_or(sold));
            table.add_row([
                Cell::new(&line.site),
                Cell::new(line.state).fg(colour(line.state)),
                Cell::new(sold),
                Cell::new("+".repeat(new.min(8) as usize)),
                Cell::new(line.complete_through.map_or_else(|| "-".to_owned(), seconds)),
                Cell::new(line.cause.map_or_else(String::new, |cause| cause.to_string())),
            ]);
        }
        table.enforce_styling();
        let mut frame =
            format!("Rollcall: {} stores sell to one HQ. Ctrl-C ends it.\n\n{}\n\n", self.roll.len(), table.trim_fmt());
        let sales: u64 = self.sold.values().sum();
        frame.push_str(&format!("SELECT count(*), sum(qty*price) FROM sales:  {sales}  {:.2}\n", self.turnover));
        frame.push_str(&format!("coverage: {}\n\n", self.coverage));
        said.lines.iter().rev().take(SHOWN).rev().for_each(|line| frame.push_str(&format!("{line}\n")));
        let more = if said.is_told { &said.to_try } else { &said.mail };
        if !more.is_empty() {
            frame.push_str(if said.is_told { "\nIn another terminal, try:\n" } else { "\n" });
            more.iter().for_each(|line| frame.push_str(&format!("  {line}\n")));
        }
        frame
    }
}

/// With seconds: here they matter.
fn seconds(at: Timestamp) -> String {
    at.to_chrono().with_timezone(&chrono::Local).format("%H:%M:%S").to_string()
}
