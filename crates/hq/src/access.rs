//! Who may use the API: people by password, their programs by tokens, the operator's commands by a
//! token in the data directory.

use std::{
    collections::BTreeMap,
    fs,
    io::{ErrorKind, Write},
    path::{Path, PathBuf},
    sync::{PoisonError, RwLock},
    time::SystemTime,
};

use argon2::{Argon2, PasswordHash, PasswordHasher, PasswordVerifier, password_hash::SaltString};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use ring::{
    digest::{SHA256, digest},
    hmac,
};
use rollcall_api::pg::{SCRAM_ITERATIONS, gen_salted_password};
use rollcall_lake::{Lake, Vault, VaultKey};
use rollcall_types::{SiteId, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{authority::random_bytes, callers::Identity, error::HqError, kept_secret::KeptSecret};

/// Who calls with the operator's token.
pub(crate) const OPERATOR: &str = "operator";
/// Why nobody is let in from elsewhere.
pub(crate) const IN_DOUBT: &str = "HQ's own state was damaged and may be older than it was, users and rights among it: until somebody has looked \
     (`rollcall lake check` and `rollcall lake repair` on HQ's machine), only commands there are carried out";

/// The file in the data directory that lets this machine's operator use the API.
pub const OPERATOR_TOKEN_FILE: &str = "operator.token";
/// The file in the data directory with the first password of user admin, until that is changed.
pub(crate) const FIRST_PASSWORD_FILE: &str = "admin.password";
pub(crate) const NODE_KEY_FILE: &str = "node.key";
/// The next node's key, while secrets are being sealed with it.
const NEXT_KEY_FILE: &str = "node.key.next";
const VAULT_NAME: &str = "users";

/// What a user may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Ask, and see the roll and incidents.
    Viewer,
    /// Also take incidents, invite and retire sites.
    Operator,
    /// Also change users and channels.
    Admin,
}

/// What is to be said of a user; what is not said stays, and a new one is a viewer of all sites.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct WantedUser {
    /// What they may do.
    #[serde(default)]
    pub(crate) role: Option<Role>,
    /// Only sites with these attributes; empty for all.
    #[serde(default)]
    pub(crate) sees: Option<BTreeMap<String, String>>,
    /// Over the PostgreSQL port, incomplete answers are errors.
    #[serde(default)]
    pub(crate) strict: Option<bool>,
}

/// Someone who may use HQ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct User {
    pub(crate) role: Role,
    /// The user sees only sites with these attributes; all if it is empty.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) sees: BTreeMap<String, String>,
    /// Over the PostgreSQL port, incomplete answers are errors unless the user says otherwise.
    #[serde(default)]
    pub(crate) strict: bool,
    password: PasswordHashes,
    /// When the password was set; none by a version that did not note it.
    #[serde(default)]
    pub(crate) password_set_at: Option<Timestamp>,
    /// It is the one that was made at HQ's first start.
    #[serde(default)]
    pub(crate) has_first_password: bool,
}

impl User {
    fn identity(&self, name: &str) -> Identity {
        Identity { name: name.to_owned(), role: self.role, sees: self.sees.clone(), is_strict: self.strict }
    }
}

/// A password in the forms its two ways in need: neither is the password.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
struct PasswordHashes {
    argon2: String,
    /// RFC 5802: salt and salted password, base64.
    scram_salt: String,
    scram_salted: String,
}

impl std::fmt::Debug for PasswordHashes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PasswordHashes(secret)")
    }
}

impl PasswordHashes {
    fn new(password: &str) -> Result<Self, HqError> {
        let salt = SaltString::encode_b64(&random_bytes::<16>()?);
        let hashed = salt.and_then(|salt| Ok(Argon2::default().hash_password(password.as_bytes(), &salt)?.to_string()));
        let argon2 = hashed.map_err(|error| HqError::Certificate(error.to_string()))?;
        let salt = random_bytes::<16>()?;
        let salted = gen_salted_password(password, &salt, SCRAM_ITERATIONS);
        Ok(Self { argon2, scram_salt: STANDARD.encode(salt), scram_salted: STANDARD.encode(salted) })
    }

    fn verify(&self, password: &str) -> bool {
        PasswordHash::new(&self.argon2)
            .is_ok_and(|hash| Argon2::default().verify_password(password.as_bytes(), &hash).is_ok())
    }
}

/// A token of a user, for a program that asks on their behalf; the token itself is not stored.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Token {
    hash: String,
    pub(crate) made_at: Timestamp,
    pub(crate) expires_at: Timestamp,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Stored {
    #[serde(default)]
    users: BTreeMap<String, User>,
    /// By user and the name that the token was given.
    #[serde(default)]
    tokens: BTreeMap<String, BTreeMap<String, Token>>,
    /// How often the operator's token was replaced, and when last.
    #[serde(default)]
    operator_tokens: u64,
    #[serde(default)]
    operator_token_at: Option<Timestamp>,
}

/// Users with hashes of their passwords, and the hash of the operator's token.
pub struct Credentials {
    key: VaultKey,
    /// This node's data directory.
    directory: PathBuf,
    /// Which of the operator's tokens is the newest known here, and its hash.
    operator: RwLock<(u64, String)>,
    stored: KeptSecret<Stored>,
    /// A password that nobody has, checked where there is no such user.
    nobody: PasswordHashes,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credentials(secret)")
    }
}

impl Credentials {
    /// Reads the credentials of this lake, or makes them; true if they were made: then the admin's
    /// password is in [`FIRST_PASSWORD_FILE`] in `directory`. The operator's token goes there too:
    /// it is made from the node's key, so that every node takes that of any other.
    pub(crate) async fn open(vault: &Vault, key: &VaultKey, directory: &Path) -> Result<(Self, bool), HqError> {
        let stored = KeptSecret::<Stored>::open(vault.clone(), VAULT_NAME).await?;
        let nobody = PasswordHashes::new(&URL_SAFE_NO_PAD.encode(random_bytes::<15>()?))?;
        let (key, directory) = (key.clone(), directory.to_owned());
        let opened = Self { key, directory, operator: RwLock::default(), stored, nobody };
        opened.write_operator_token()?;
        if opened.user("admin").is_some() {
            return Ok((opened, false));
        }
        // It is on disk before it counts.
        let password = URL_SAFE_NO_PAD.encode(random_bytes::<15>()?);
        write_private(&opened.directory.join(FIRST_PASSWORD_FILE), format!("{password}\n").as_bytes())?;
        let admin = User {
            role: Role::Admin,
            sees: BTreeMap::new(),
            strict: false,
            password: PasswordHashes::new(&password)?,
            password_set_at: Some(chrono::Utc::now().into()),
            has_first_password: true,
        };
        let add = |stored: &mut Stored| {
            let is_first = !stored.users.contains_key("admin");
            stored.users.entry("admin".to_owned()).or_insert_with(|| admin.clone());
            Ok(is_first)
        };
        let is_first = opened.stored.change(add).await?;
        if !is_first {
            // Another node was first, and its password counts.
            let _ = fs::remove_file(opened.directory.join(FIRST_PASSWORD_FILE));
        }
        Ok((opened, is_first))
    }

    /// What every node that has the key makes of a text, and nobody else can.
    fn made_from_key(&self, about: &str) -> hmac::Tag {
        hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, self.key.as_bytes()), about.as_bytes())
    }

    /// Writes the newest of the operator's tokens for the commands on this machine.
    fn write_operator_token(&self) -> Result<(), HqError> {
        let newest = self.stored.get().operator_tokens;
        let mut operator = self.operator.write().unwrap_or_else(PoisonError::into_inner);
        if operator.0 == newest && !operator.1.is_empty() {
            return Ok(());
        }
        let about = match newest {
            0 => "the operator's token".to_owned(),
            newest => format!("the operator's token, {newest}"),
        };
        let token = self.made_from_key(&about);
        let token = URL_SAFE_NO_PAD.encode(token);
        write_private(&self.directory.join(OPERATOR_TOKEN_FILE), token.as_bytes())?;
        *operator = (newest, token_hash(&token));
        Ok(())
    }

    /// Replaces the operator's token: who has a copy of the old one is let in no more.
    pub(crate) async fn replace_operator_token(&self, now: Timestamp) -> Result<(), HqError> {
        let replace = |stored: &mut Stored| {
            (stored.operator_tokens, stored.operator_token_at) = (stored.operator_tokens + 1, Some(now));
            Ok(())
        };
        self.stored.change(replace).await?;
        self.write_operator_token()
    }

    /// When the operator's token was replaced last.
    pub(crate) fn operator_token_at(&self) -> Option<Timestamp> {
        self.stored.get().operator_token_at
    }

    /// Removes the file with the first password once that is not the admin's any more.
    fn forget_first_password(&self) {
        let path = self.directory.join(FIRST_PASSWORD_FILE);
        if self.user("admin").is_some_and(|admin| !admin.has_first_password)
            && let Err(error) = fs::remove_file(&path)
            && error.kind() != ErrorKind::NotFound
        {
            tracing::warn!(path = %path.display(), %error, "the old first password of admin could not be removed");
        }
    }

    /// Takes over what other nodes changed.
    pub(crate) async fn reload(&self) -> Result<(), HqError> {
        self.stored.reload().await?;
        self.forget_first_password();
        self.write_operator_token()
    }

    /// All users by name.
    pub(crate) fn users(&self) -> BTreeMap<String, User> {
        self.stored.get().users.clone()
    }

    /// One user.
    pub(crate) fn user(&self, name: &str) -> Option<User> {
        self.stored.get().users.get(name).cloned()
    }

    /// Salt and salted password for SCRAM (RFC 5802); made up, and never right, for a user there is
    /// not.
    pub(crate) fn scram(&self, name: &str) -> Result<(Vec<u8>, Vec<u8>), HqError> {
        let stored = self.stored.get();
        let decode = |text: &str| STANDARD.decode(text).map_err(|error| HqError::Certificate(error.to_string()));
        // The same salt each time, as a real user would have; and the same work for both.
        let made_up = self.made_from_key(&format!("salt of {name}"));
        let user = stored.users.get(name);
        let known = user.map_or(&self.nobody, |user| &user.password);
        let (salt, salted) = (decode(&known.scram_salt)?, decode(&known.scram_salted)?);
        Ok((if user.is_some() { salt } else { made_up.as_ref()[..16].to_vec() }, salted))
    }

    /// Adds or changes a user. Without a password, a new user gets one, which is returned; an old
    /// one keeps theirs.
    pub(crate) async fn set(
        &self,
        name: &str,
        wanted: &WantedUser,
        password: Option<&str>,
        now: Timestamp,
    ) -> Result<Option<String>, HqError> {
        SiteId::new(name)
            .map_err(|_| HqError::Invalid(format!("{name:?} is no name for a user: use a-z, 0-9, -, _ and .")))?;
        if password.is_some_and(|password| password.chars().count() < 8) {
            return Err(HqError::Invalid("a password needs at least 8 characters".to_owned()));
        }
        // Attributes have lower-case names, as they have on the roster.
        let sees: Option<BTreeMap<String, String>> = wanted
            .sees
            .as_ref()
            .map(|sees| sees.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.clone())).collect());
        if name == "admin" && wanted.role.is_some_and(|role| role != Role::Admin) {
            return Err(HqError::Invalid("the user admin stays an admin".to_owned()));
        }
        let made = new_password()?;
        let hashes = PasswordHashes::new(password.unwrap_or(&made))?;
        let set = |stored: &mut Stored| {
            let before = stored.users.get(name);
            let known = before.filter(|_| password.is_none());
            let is_made = known.is_none() && password.is_none();
            // What is not said stays as it is: a new password alone gives nobody other rights.
            let user = User {
                role: wanted.role.or(before.map(|user| user.role)).unwrap_or(Role::Viewer),
                sees: sees.clone().or(before.map(|user| user.sees.clone())).unwrap_or_default(),
                strict: wanted.strict.or(before.map(|user| user.strict)).unwrap_or_default(),
                password: known.map_or_else(|| hashes.clone(), |user| user.password.clone()),
                password_set_at: known.map_or(Some(now), |user| user.password_set_at),
                has_first_password: known.is_some_and(|user| user.has_first_password),
            };
            stored.users.insert(name.to_owned(), user);
            Ok(is_made.then(|| made.clone()))
        };
        let made = self.stored.change(set).await?;
        self.forget_first_password();
        Ok(made)
    }

    /// Removes a user; false if there was none.
    pub(crate) async fn remove(&self, name: &str) -> Result<bool, HqError> {
        if name == "admin" {
            return Err(HqError::Invalid("the user admin stays".to_owned()));
        }
        self.stored
            .change(|stored| {
                stored.tokens.remove(name);
                Ok(stored.users.remove(name).is_some())
            })
            .await
    }

    /// The tokens of a user by name.
    pub(crate) fn tokens(&self, user: &str) -> BTreeMap<String, Token> {
        self.stored.get().tokens.get(user).cloned().unwrap_or_default()
    }

    /// Makes a token for a user, in place of one of that name. It is returned here and never again.
    pub(crate) async fn make_token(
        &self,
        user: &str,
        name: &str,
        now: Timestamp,
        expires_at: Timestamp,
    ) -> Result<String, HqError> {
        SiteId::new(name)
            .map_err(|_| HqError::Invalid(format!("{name:?} is no name for a token: use a-z, 0-9, -, _ and .")))?;
        let token = URL_SAFE_NO_PAD.encode(random_bytes::<32>()?);
        let kept = Token { hash: token_hash(&token), made_at: now, expires_at };
        self.stored
            .change(|stored| {
                if !stored.users.contains_key(user) {
                    return Err(HqError::NotFound(format!("there is no user {user}")));
                }
                let tokens = stored.tokens.entry(user.to_owned()).or_default();
                tokens.retain(|_, token| token.expires_at > now);
                tokens.insert(name.to_owned(), kept.clone());
                Ok(())
            })
            .await?;
        Ok(token)
    }

    /// Revokes a token; false if there was none.
    pub(crate) async fn remove_token(&self, user: &str, name: &str) -> Result<bool, HqError> {
        self.stored
            .change(|stored| Ok(stored.tokens.get_mut(user).is_some_and(|tokens| tokens.remove(name).is_some())))
            .await
    }

    /// Whose token this is.
    pub(crate) fn bearer(&self, token: &str, now: Timestamp) -> Option<Identity> {
        let (hash, stored) = (token_hash(token), self.stored.get());
        if same(&hash, &self.operator.read().unwrap_or_else(PoisonError::into_inner).1) {
            return Some(Identity {
                name: OPERATOR.to_owned(),
                role: Role::Admin,
                sees: BTreeMap::new(),
                is_strict: false,
            });
        }
        let is_it = |token: &Token| token.expires_at > now && same(&hash, &token.hash);
        let (name, _) = stored.tokens.iter().find(|(_, tokens)| tokens.values().any(is_it))?;
        stored.users.get(name).map(|user| user.identity(name))
    }

    /// Who sends this `Authorization` header with a password; none when it is not valid. Slow on
    /// purpose, and as slow for a user there is not: time does not tell who there is.
    pub(crate) fn check(&self, header: &str) -> Option<Identity> {
        let pair = pair_of(header)?;
        let (name, password) = pair.split_once(':')?;
        let user = self.user(name);
        let known = user.as_ref().map_or(&self.nobody, |user| &user.password);
        let is_right = known.verify(password);
        user.filter(|_| is_right).map(|user| user.identity(name))
    }
}

/// User and password of an `Authorization` header.
fn pair_of(header: &str) -> Option<String> {
    let pair = STANDARD.decode(header.strip_prefix("Basic ")?.trim()).ok()?;
    String::from_utf8(pair).ok()
}

/// The user that an `Authorization` header names.
pub(crate) fn user_of(header: &str) -> Option<String> {
    Some(pair_of(header)?.split_once(':')?.0.to_owned())
}

/// Tokens are long and random, so a plain hash is enough.
pub(crate) fn token_hash(token: &str) -> String {
    STANDARD.encode(digest(&SHA256, token.as_bytes()))
}

/// Compares without telling by time where two texts differ.
fn same(left: &str, right: &str) -> bool {
    let key = hmac::Key::new(hmac::HMAC_SHA256, b"compare");
    hmac::verify(&key, left.as_bytes(), hmac::sign(&key, right.as_bytes()).as_ref()).is_ok()
}

/// A password that nobody guesses.
pub(crate) fn new_password() -> Result<String, HqError> {
    Ok(URL_SAFE_NO_PAD.encode(random_bytes::<15>()?))
}

/// The key with which this node opens secrets: in the data directory, readable by its owner alone.
/// A new lake gets a new one; a lake that has secrets is opened with the key of the node that made
/// it.
pub(crate) async fn node_key(directory: &Path, lake: &Lake) -> Result<VaultKey, HqError> {
    let path = directory.join(NODE_KEY_FILE);
    if directory.join(NEXT_KEY_FILE).exists() {
        let text = "secrets are being sealed with a new key, and that broke off: run `rollcall secrets rotate node-key` once more";
        return Err(HqError::Invalid(text.to_owned()));
    }
    match read_key(&path)? {
        Some(key) => Ok(key),
        None => {
            if lake.has_secrets().await? {
                let wanted = path.display();
                return Err(HqError::Invalid(format!(
                    "this lake's secrets are sealed; copy {NODE_KEY_FILE} from the node that made it to {wanted}"
                )));
            }
            let key = VaultKey::generate()?;
            write_private(&path, key.as_bytes())?;
            Ok(key)
        }
    }
}

fn read_key(path: &Path) -> Result<Option<VaultKey>, HqError> {
    match fs::read(path) {
        Ok(bytes) => match VaultKey::from_bytes(&bytes) {
            Some(key) => Ok(Some(key)),
            None => Err(HqError::Invalid(format!(
                "{} is damaged, it must hold 32 bytes: put it back from a backup, or copy it from another node",
                path.display()
            ))),
        },
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(source) => Err(HqError::Io { doing: format!("reading {}", path.display()), source }),
    }
}

/// When this node's key was written, by its file.
pub(crate) fn node_key_at(directory: &Path) -> Option<Timestamp> {
    let written: Option<SystemTime> = fs::metadata(directory.join(NODE_KEY_FILE)).and_then(|file| file.modified()).ok();
    written.map(|written| chrono::DateTime::<chrono::Utc>::from(written).into())
}

/// Seals all secrets of a lake that no node has open with a new key, and puts that in the place of
/// the old one. Gives how many secrets were sealed anew. What broke off goes on when it is begun
/// again.
pub(crate) async fn rotate_node_key(directory: &Path, lake: &Lake) -> Result<usize, HqError> {
    let (path, next_path) = (directory.join(NODE_KEY_FILE), directory.join(NEXT_KEY_FILE));
    let Some(old) = read_key(&path)? else {
        return Err(HqError::Invalid(format!("there is no {}", path.display())));
    };
    // One that is not whole was never used: nothing is sealed before it is on disk.
    let next = match read_key(&next_path) {
        Ok(Some(next)) => next,
        Ok(None) | Err(HqError::Invalid(_)) => {
            let next = VaultKey::generate()?;
            write_private(&next_path, next.as_bytes())?;
            next
        }
        Err(error) => return Err(error),
    };
    let count = lake.vault(old).reseal(&next).await?;
    let failed = |source| HqError::Io { doing: format!("putting {} in place", path.display()), source };
    fs::rename(&next_path, &path).map_err(failed)?;
    fs::File::open(directory).and_then(|directory| directory.sync_all()).map_err(failed)?;
    Ok(count)
}

fn write_private(path: &Path, bytes: &[u8]) -> Result<(), HqError> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let written = options.open(path).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    written.map_err(|source| HqError::Io { doing: format!("writing {}", path.display()), source })
}
