//! The relations of `pg_catalog` that are made here: what tells of tables, keys, schemas and roles.

use std::sync::Arc;

use datafusion::{catalog::TableProvider, common::Result};

use super::{
    columns::Columns,
    contents::{Contents, Index, OWNER, OWNER_NAME, Relation},
};

/// Their names.
pub(crate) const OWN_RELATIONS: [&str; 14] = [
    "pg_attribute",
    "pg_class",
    "pg_constraint",
    "pg_database",
    "pg_index",
    "pg_indexes",
    "pg_namespace",
    "pg_roles",
    "pg_sequences",
    "pg_shadow",
    "pg_stat_activity",
    "pg_tables",
    "pg_user",
    "pg_stat_database",
];

/// The number of the one database.
const DATABASE: i32 = 16_384;
const BTREE: i32 = 403;
const HEAP: i32 = 2;

/// The relation of this name, if it is made here.
pub(crate) fn relation(
    name: &str,
    database: &str,
    user: Option<&str>,
    contents: &Contents,
) -> Result<Option<Arc<dyn TableProvider>>> {
    let table = match name {
        "pg_attribute" => attributes(contents),
        "pg_class" => classes(contents),
        "pg_constraint" => constraints(contents),
        "pg_database" => databases(database),
        "pg_index" => index_rows(contents),
        "pg_indexes" => indexes(contents),
        "pg_namespace" => namespaces(contents),
        "pg_roles" => roles(user),
        "pg_user" | "pg_shadow" => users(user),
        "pg_tables" => tables(contents),
        "pg_sequences" => sequences(),
        "pg_stat_activity" | "pg_stat_database" => nothing_running(),
        _ => return Ok(None),
    };
    table.map(Some)
}

fn classes(contents: &Contents) -> Result<Arc<dyn TableProvider>> {
    let kind = |relation: &Relation| if relation.is_index { "i" } else { "r" };
    Columns::of(&contents.relations)
        .oid("oid", |relation| relation.number)
        .text("relname", |relation| relation.name.clone())
        .oid("relnamespace", |relation| relation.namespace)
        .oids(&["reltype", "reloftype"], 0)
        .oids(&["relowner"], OWNER)
        .oid("relam", |relation| if relation.is_index { BTREE } else { HEAP })
        .oid("relfilenode", |relation| relation.number)
        .oids(&["reltablespace"], 0)
        .int("relpages", |_| 0)
        .float("reltuples", -1.0)
        .int("relallvisible", |_| 0)
        .oids(&["reltoastrelid"], 0)
        .flag("relhasindex", |relation| relation.has_index)
        .flags(&["relisshared"], false)
        .texts(&["relpersistence"], "p")
        .text("relkind", |relation| kind(relation).to_owned())
        .small("relnatts", |relation| relation.columns)
        .small("relchecks", |_| 0)
        .flags(&["relhasrules", "relhastriggers", "relhassubclass", "relrowsecurity", "relforcerowsecurity"], false)
        .flags(&["relispopulated"], true)
        .text("relreplident", |relation| if relation.is_index { "n" } else { "d" }.to_owned())
        .flags(&["relispartition"], false)
        .oids(&["relrewrite"], 0)
        .int("relfrozenxid", |_| 0)
        .int("relminmxid", |_| 0)
        .no_list(&["relacl", "reloptions"])
        .no_text(&["relpartbound"])
        .table()
}

fn attributes(contents: &Contents) -> Result<Arc<dyn TableProvider>> {
    Columns::of(&contents.columns)
        .oid("attrelid", |column| column.relation)
        .text("attname", |column| column.name.clone())
        .oid("atttypid", |column| column.kind.number)
        .small("attlen", |column| column.kind.length)
        .small("attnum", |column| column.position)
        .int("attcacheoff", |_| -1)
        .int("atttypmod", |column| column.kind.modifier)
        .small("attndims", |_| 0)
        .flag("attbyval", |column| column.kind.by_value())
        .text("attalign", |column| column.kind.align.to_owned())
        .text("attstorage", |column| if column.kind.length < 0 { "x" } else { "p" }.to_owned())
        .texts(&["attcompression"], "")
        .flag("attnotnull", |column| column.not_null)
        .flags(&["atthasdef", "atthasmissing"], false)
        .texts(&["attidentity", "attgenerated"], "")
        .flags(&["attisdropped"], false)
        .flags(&["attislocal"], true)
        .small("attinhcount", |_| 0)
        .small("attstattarget", |_| -1)
        .oid("attcollation", |column| column.kind.collation)
        .no_list(&["attacl", "attoptions", "attfdwoptions"])
        .no_text(&["attmissingval"])
        .table()
}

fn positions(index: &Index) -> Vec<i16> {
    index.columns.iter().map(|(position, _)| *position).collect()
}

/// The same number for every column of the index, as PostgreSQL writes a vector.
fn vector(index: &Index, number: i32) -> String {
    index.columns.iter().map(|_| number.to_string()).collect::<Vec<_>>().join(" ")
}

fn constraints(contents: &Contents) -> Result<Arc<dyn TableProvider>> {
    Columns::of(&contents.indexes)
        .oid("oid", |index| index.constraint)
        .text("conname", |index| index.name.clone())
        .oid("connamespace", |index| index.namespace)
        .texts(&["contype"], "p")
        .flags(&["condeferrable", "condeferred"], false)
        .flags(&["convalidated"], true)
        .oid("conrelid", |index| index.table)
        .oids(&["contypid"], 0)
        .oid("conindid", |index| index.number)
        .oids(&["conparentid", "confrelid"], 0)
        .texts(&["confupdtype", "confdeltype", "confmatchtype"], " ")
        .flags(&["conislocal"], true)
        .small("coninhcount", |_| 0)
        .flags(&["connoinherit"], true)
        .smalls("conkey", |index| Some(positions(index)))
        .smalls("confkey", |_| None)
        .no_list(&["conpfeqop", "conppeqop", "conffeqop", "confdelsetcols", "conexclop"])
        .no_text(&["conbin"])
        .table()
}

fn index_rows(contents: &Contents) -> Result<Arc<dyn TableProvider>> {
    let parts = |index: &Index| index.columns.len() as i16;
    Columns::of(&contents.indexes)
        .oid("indexrelid", |index| index.number)
        .oid("indrelid", |index| index.table)
        .small("indnatts", parts)
        .small("indnkeyatts", parts)
        .flags(&["indisunique"], true)
        .flags(&["indnullsnotdistinct"], false)
        .flags(&["indisprimary"], true)
        .flags(&["indisexclusion"], false)
        .flags(&["indimmediate"], true)
        .flags(&["indisclustered"], false)
        .flags(&["indisvalid"], true)
        .flags(&["indcheckxmin"], false)
        .flags(&["indisready", "indislive"], true)
        .flags(&["indisreplident"], false)
        .vector("indkey", "int2vector", |index| {
            positions(index).iter().map(i16::to_string).collect::<Vec<_>>().join(" ")
        })
        .vector("indcollation", "oidvector", |index| vector(index, 0))
        .vector("indclass", "oidvector", |index| vector(index, 1978))
        .vector("indoption", "int2vector", |index| vector(index, 0))
        .no_text(&["indexprs", "indpred"])
        .table()
}

fn indexes(contents: &Contents) -> Result<Arc<dyn TableProvider>> {
    let schema = |index: &Index| contents.by_number(index.table).map_or_else(String::new, |table| table.schema.clone());
    Columns::of(&contents.indexes)
        .text("schemaname", schema)
        .text("tablename", |index| index.table_name.clone())
        .text("indexname", |index| index.name.clone())
        .no_text(&["tablespace"])
        .text("indexdef", |index| index.definition("public"))
        .table()
}

fn namespaces(contents: &Contents) -> Result<Arc<dyn TableProvider>> {
    let schemas: Vec<_> = contents.schemas.iter().collect();
    Columns::of(&schemas)
        .oid("oid", |(_, number)| **number)
        .text("nspname", |(name, _)| (*name).clone())
        .oids(&["nspowner"], OWNER)
        .no_list(&["nspacl"])
        .table()
}

fn databases(name: &str) -> Result<Arc<dyn TableProvider>> {
    Columns::of(&[name])
        .oids(&["oid"], DATABASE)
        .text("datname", |name| (*name).to_owned())
        .oids(&["datdba"], OWNER)
        .int("encoding", |_| 6)
        .texts(&["datlocprovider"], "c")
        .flags(&["datistemplate"], false)
        .flags(&["datallowconn"], true)
        .flags(&["dathasloginevt"], false)
        .int("datconnlimit", |_| -1)
        .int("datfrozenxid", |_| 0)
        .int("datminmxid", |_| 0)
        .oids(&["dattablespace"], 1663)
        .texts(&["datcollate", "datctype"], "C")
        .no_text(&["daticulocale", "datlocale", "daticurules", "datcollversion"])
        .no_list(&["datacl"])
        .table()
}

/// The owner of everything, and who asks.
fn role_names(user: Option<&str>) -> Vec<(i32, String)> {
    let mut names = vec![(OWNER, OWNER_NAME.to_owned())];
    names.extend(user.filter(|user| *user != OWNER_NAME).map(|user| (DATABASE + 1, user.to_owned())));
    names
}

fn roles(user: Option<&str>) -> Result<Arc<dyn TableProvider>> {
    Columns::of(&role_names(user))
        .text("rolname", |(_, name)| name.clone())
        .flag("rolsuper", |(number, _)| *number == OWNER)
        .flags(&["rolinherit"], true)
        .flags(&["rolcreaterole", "rolcreatedb"], false)
        .flag("rolcanlogin", |(number, _)| *number != OWNER)
        .flags(&["rolreplication"], false)
        .int("rolconnlimit", |_| -1)
        .texts(&["rolpassword"], "********")
        .no_text(&["rolvaliduntil"])
        .flags(&["rolbypassrls"], false)
        .no_list(&["rolconfig"])
        .oid("oid", |(number, _)| *number)
        .table()
}

fn users(user: Option<&str>) -> Result<Arc<dyn TableProvider>> {
    Columns::of(&role_names(user))
        .text("usename", |(_, name)| name.clone())
        .oid("usesysid", |(number, _)| *number)
        .flags(&["usecreatedb"], false)
        .flag("usesuper", |(number, _)| *number == OWNER)
        .flags(&["userepl", "usebypassrls"], false)
        .texts(&["passwd"], "********")
        .no_text(&["valuntil"])
        .no_list(&["useconfig"])
        .table()
}

fn tables(contents: &Contents) -> Result<Arc<dyn TableProvider>> {
    let tables: Vec<&Relation> = contents.relations.iter().filter(|relation| !relation.is_index).collect();
    Columns::of(&tables)
        .text("schemaname", |table| table.schema.clone())
        .text("tablename", |table| table.name.clone())
        .texts(&["tableowner"], OWNER_NAME)
        .no_text(&["tablespace"])
        .flag("hasindexes", |table| table.has_index)
        .flags(&["hasrules", "hastriggers", "rowsecurity"], false)
        .table()
}

fn sequences() -> Result<Arc<dyn TableProvider>> {
    Columns::<()>::of(&[])
        .no_text(&["schemaname", "sequencename", "sequenceowner", "data_type"])
        .no_number(&["start_value", "min_value", "max_value", "increment_by", "cache_size", "last_value"])
        .table()
}

/// Who asks what is told to operators, not here.
fn nothing_running() -> Result<Arc<dyn TableProvider>> {
    Columns::<()>::of(&[])
        .oids(&["datid", "usesysid"], 0)
        .no_text(&["datname", "usename", "application_name", "client_addr", "state", "query", "backend_type"])
        .no_number(&["pid", "numbackends", "xact_commit", "xact_rollback", "blks_read", "blks_hit"])
        .table()
}

impl Index {
    /// As `CREATE INDEX` would be written.
    pub(crate) fn definition(&self, schema: &str) -> String {
        format!(
            "CREATE UNIQUE INDEX {} ON {}.{} USING btree ({})",
            quoted(&self.name),
            quoted(schema),
            quoted(&self.table_name),
            self.column_list()
        )
    }

    pub(crate) fn column_list(&self) -> String {
        self.columns.iter().map(|(_, name)| quoted(name)).collect::<Vec<_>>().join(", ")
    }
}

/// A name as PostgreSQL writes it: in quotes only where it must be.
pub(crate) fn quoted(name: &str) -> String {
    let plain = name.starts_with(|letter: char| letter.is_ascii_lowercase() || letter == '_')
        && name.chars().all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '_');
    let reserved = ["order", "left", "user", "table", "group", "select", "where", "from", "to", "end", "all", "check"];
    if plain && !reserved.contains(&name) { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}
