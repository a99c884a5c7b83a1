//! What every column of HQ's own tables means: the source of `docs/tables.md`.
//!
//! A test of the whole asks a running HQ for its tables and columns, and writes the page from both.
//! A column that is not described here, or no longer exists, fails that test.

/// A table, what it holds, and its columns in order.
pub type Described = (&'static str, &'static str, &'static [(&'static str, &'static str)]);

/// The columns that HQ adds to every table of a store.
pub const ADDED: &[(&str, &str)] = &[
    ("_site", "the store that the row is from"),
    ("_epoch", "the life of that store's journal; a restored or exchanged database begins another"),
    ("_seq", "the position of the change in the journal; `_site`, `_epoch` and `_seq` together are unique"),
    (
        "_op",
        "`I` insert, `U` update, `D` delete (in `history` only), `S` a row that was there when the table was loaded, \
         or loaded again",
    ),
    ("_changed_at", "when the store's program made the change, corrected to HQ's clock"),
    ("_received_at", "when the row was durable at HQ"),
    ("_misfit", "values that do not fit their columns, as a JSON object; null for most rows"),
];

/// The tables of the schema `rollcall`, by name.
pub const TABLES: &[Described] = &[
    (
        "arrivals",
        "Each published table, and the rules of settings (`rollcall.settings`), at each store that is to have it.",
        &[
            ("site", "the store"),
            ("table_name", "the published table"),
            ("wanted", "the version that the store should have"),
            ("applied", "the version that it says it has"),
            ("lacks_because", "why it does not have it; null if it has"),
            (
                "edits",
                "rows that somebody at the store changed although they are HQ's; they were put right or reported",
            ),
            ("dangling", "rows of the store that name a row of this table that is not there"),
            ("differing", "rows that are not as HQ sent them, because a rule of the store changed or refused them"),
        ],
    ),
    (
        "audit",
        "Every request that changes something, whoever made it.",
        &[
            ("at", "when"),
            ("by", "the user, or `operator` for a command on HQ's machine"),
            ("from", "the address that the request came from"),
            ("what", "the request"),
            ("outcome", "how it ended"),
            ("before", "what it changed in HQ's state, as it was before: JSON, without secrets"),
            ("after", "the same, as it was afterwards"),
        ],
    ),
    (
        "columns",
        "The columns of every table that stores send.",
        &[
            ("table_name", "the table"),
            ("column_name", "its name at HQ"),
            ("type", "its type at HQ"),
            ("name_at_site", "what the first store called it, if that differs"),
        ],
    ),
    (
        "complete_through",
        "How far each store's data has come, by table.",
        &[
            ("site", "the store"),
            ("table_name", "the table"),
            ("complete_through", "everything that the store changed up to this time is here"),
        ],
    ),
    (
        "contacts",
        "In which minutes each store was heard.",
        &[
            ("_site", "the store"),
            ("hour", "the hour"),
            ("minutes", "a bit for each minute of the hour; bit 0 is minute 0"),
        ],
    ),
    (
        "coverage",
        "What an answer about every store would lack now. Over the PostgreSQL port it is what the last answer of this \
         connection lacked. `rollcall.coverage('SELECT …')` is what the answer to that question would lack; it is not \
         answered.",
        &[
            ("site", "a store that is missing"),
            ("state", "its state, as in `rollcall.roll`"),
            ("since", "it is complete through this time; null if nothing was ever heard"),
            ("cause", "what is likely: power or link, void, capture …"),
            ("expected_rows", "an estimate of the rows that are missing; null where nothing is known"),
            ("expected_amount", "the same in money, for a table with a declared measure"),
        ],
    ),
    (
        "cursors",
        "How far HQ has each store's journal, by table.",
        &[
            ("table_name", "the table"),
            ("site", "the store, or `hq` for what HQ publishes"),
            ("epoch", "the life of its journal"),
            ("seq", "the last position that is durable"),
        ],
    ),
    (
        "incidents",
        "Open incidents, and those that ended in the last week.",
        &[
            ("id", "its number"),
            ("kind", "its kind; [errors.md](errors.md) lists all"),
            ("stream", "the table, if it is about one table of a store that is heard otherwise"),
            ("sites", "the stores, separated by blanks"),
            ("cause", "what is likely"),
            ("evidence", "what is known, in words"),
            ("level", "how loud it is, 1 to 5; 0 is on the screen only"),
            ("since", "when the trouble began"),
            ("opened_at", "when it was noticed"),
            ("closed_at", "when it ended; null while it is open"),
            ("acknowledged_by", "who has taken it; null if nobody has"),
        ],
    ),
    (
        "lives",
        "New lives of stores' journals that may lack what had been confirmed: a database was restored, exchanged or cloned.",
        &[
            ("site", "the store"),
            ("epoch", "the new life"),
            ("before", "the life before it"),
            ("current", "the life that people see"),
            ("began_at", "when the new life was first heard"),
            ("reason", "why the store began it"),
            ("state", "`apart, to be ruled on`, `shown, to be ruled on`, `accepted` or `apart`"),
            ("ruled_at", "when a person ruled on it"),
            ("ruled_by", "who ruled"),
            ("ruling", "the reason that was given"),
        ],
    ),
    (
        "manifests",
        "What each store counted last in each table, beside what HQ counted.",
        &[
            ("site", "the store"),
            ("table_name", "the table"),
            ("after", "the position after which the count begins"),
            ("through", "the position at which it ends"),
            ("rows_stated", "changes that the store captured between them"),
            ("rows_here", "how many of these are at HQ; null where they cannot be counted"),
            ("last_key", "the largest row number in the store's table"),
            ("received_at", "when the manifest came"),
        ],
    ),
    (
        "uncaptured",
        "What stores have and HQ does not get, by each store's newest manifest.",
        &[
            ("site", "the store"),
            ("table_name", "a table that is not captured there; with a column, one that is"),
            ("column_name", "a column of the captured table that is gone or left out; null for a whole table"),
            ("why", "`table not captured`, `column gone`, or `column left out` (as the store or HQ asked)"),
        ],
    ),
    (
        "publications",
        "Every version of every table that HQ publishes.",
        &[
            ("table_name", "the table"),
            ("version", "the version"),
            ("published_at", "when"),
            ("published_by", "by whom; `sites` for what stores changed in a shared table"),
            ("note", "the note that was given"),
            ("inserted", "rows that were new"),
            ("updated", "rows that changed"),
            ("deleted", "rows that went"),
            ("sites", "how many stores should have it"),
            ("have", "how many of them do"),
        ],
    ),
    (
        "quarantine",
        "Batches of which HQ could not take every row. `rollcall quarantine` shows them in words.",
        &[
            ("_site", "the store"),
            ("_epoch", "the life of its journal"),
            ("first_seq", "the first position of the batch"),
            ("last_seq", "the last"),
            ("_received_at", "when it came"),
            ("reason", "what could not be taken, and why"),
            ("header", "the batch's header, as it came"),
            ("payload", "its rows, as they came"),
            ("tables", "the tables concerned, a JSON list; null if it may be any"),
        ],
    ),
    (
        "restated",
        "Tables that stores sent again in full, because rows may have been missing, doubled or out of date.",
        &[
            ("site", "the store"),
            ("table_name", "the table"),
            ("reason", "why"),
            ("began_at", "when the store began"),
            ("completed_at", "when the last row was here; null until then"),
            ("rows_before", "rows that HQ had before"),
            ("rows_after", "rows that it has since"),
        ],
    ),
    (
        "roll",
        "The state of every store, now. `rollcall call` shows it in words.",
        &[
            ("site", "the store"),
            ("state", "one of the states that [operations.md](operations.md#the-states-of-a-store) explains"),
            ("since", "since when; null where that is not known"),
            ("cause", "what is likely; null if nothing is wrong"),
            ("last_heard", "when it was last heard"),
            ("complete_through", "everything that it changed up to this time is here"),
            ("unconfirmed_rows", "changes that wait at the store, as it said last"),
            ("detail", "more, in words"),
        ],
    ),
    (
        "site_log",
        "What stores' journals say of themselves, one entry a row. `a`, `b` and `c` depend on `_op`.",
        &[
            ("_site", "the store"),
            ("_epoch", "the life of its journal"),
            ("_seq", "the position of the entry"),
            (
                "_op",
                "`B` a load of a table began, `C` one ended, `L` changes are lost for good, `M` a manifest; the store says \
                 others too, which HQ keeps",
            ),
            ("_changed_at", "when, corrected to HQ's clock"),
            ("_received_at", "when it was durable at HQ"),
            ("_misfit", "always null"),
            ("a", "`B`, `C`: the table. `L`: the first position that is lost. `M`: the position after which it counts"),
            (
                "b",
                "`B`: the reason. `C`: the position at which the load began. `L`: the last position that is lost. `M`: the position \
                 at which it ends",
            ),
            ("c", "`L`: why. `M`: the counts by table, as JSON"),
        ],
    ),
    (
        "sites",
        "The roster. Its other columns are the attributes that you gave the stores. Also called `sites`, without a schema.",
        &[
            ("id", "the store"),
            ("enrolled_at", "when it joined; null if it never did"),
            ("retired_at", "when it was retired"),
            ("retired_reason", "the reason that was given"),
        ],
    ),
    (
        "untold",
        "Questions whose askers switched the coverage note off for one statement.",
        &[
            ("at", "when"),
            ("asked_by", "who asked"),
            ("question", "the statement"),
            ("coverage", "what the note would have said"),
        ],
    ),
];
