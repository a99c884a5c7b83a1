//! Who may use the API: people by password, their programs by tokens, the operator's commands by a
//! token in the data directory.

use std::{
    collections::BTreeMap,
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
    sync::{PoisonError, RwLock},
};

use argon2::{Argon2, PasswordHash, PasswordHasher, PasswordVerifier, password_hash::SaltString};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use ring::hmac;
use rollcall_lake::{Vault, VaultKey};
use rollcall_pg::{SCRAM_ITERATIONS, gen_salted_password};
use rollcall_types::{SiteId, Timestamp};
use serde::{Deserialize, Serialize};

use rollcall_registry::{HqError, KeptSecret, random_bytes, token_hash};

use crate::{callers::Identity, node_key::write_private};

/// Who calls with the operator's token.
pub(crate) const OPERATOR: &str = "operator";

/// The file in the data directory that lets this machine's operator use the API.
pub const OPERATOR_TOKEN_FILE: &str = "operator.token";
/// The file in the data directory with the first password of user admin, until that is changed.
pub const FIRST_PASSWORD_FILE: &str = "admin.password";
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
pub struct WantedUser {
    /// What they may do.
    #[serde(default)]
    pub role: Option<Role>,
    /// Only sites with these attributes; empty for all.
    #[serde(default)]
    pub sees: Option<BTreeMap<String, String>>,
    /// Over the PostgreSQL port, incomplete answers are errors.
    #[serde(default)]
    pub strict: Option<bool>,
}

/// Someone who may use HQ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    pub role: Role,
    /// The user sees only sites with these attributes; all if it is empty.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sees: BTreeMap<String, String>,
    /// Over the PostgreSQL port, incomplete answers are errors unless the user says otherwise.
    #[serde(default)]
    pub strict: bool,
    password: PasswordHashes,
    /// When the password was set; none by a version that did not note it.
    #[serde(default)]
    pub password_set_at: Option<Timestamp>,
    /// It is the one that was made at HQ's first start.
    #[serde(default)]
    pub has_first_password: bool,
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
pub struct Token {
    hash: String,
    pub made_at: Timestamp,
    pub expires_at: Timestamp,
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
    pub async fn open(vault: &Vault, key: &VaultKey, directory: &Path) -> Result<(Self, bool), HqError> {
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
            password_set_at: Some(rollcall_runtime::now()),
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
    pub async fn replace_operator_token(&self, now: Timestamp) -> Result<(), HqError> {
        let replace = |stored: &mut Stored| {
            (stored.operator_tokens, stored.operator_token_at) = (stored.operator_tokens + 1, Some(now));
            Ok(())
        };
        self.stored.change(replace).await?;
        self.write_operator_token()
    }

    /// When the operator's token was replaced last.
    pub fn operator_token_at(&self) -> Option<Timestamp> {
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
    pub async fn reload(&self) -> Result<(), HqError> {
        self.stored.reload().await?;
        self.forget_first_password();
        self.write_operator_token()
    }

    /// All users by name.
    pub fn users(&self) -> BTreeMap<String, User> {
        self.stored.get().users.clone()
    }

    /// One user.
    pub fn user(&self, name: &str) -> Option<User> {
        self.stored.get().users.get(name).cloned()
    }

    /// Salt and salted password for SCRAM (RFC 5802); made up, and never right, for a user there is
    /// not.
    pub fn scram(&self, name: &str) -> Result<(Vec<u8>, Vec<u8>), HqError> {
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
    pub async fn set(
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
    pub async fn remove(&self, name: &str) -> Result<bool, HqError> {
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
    pub fn tokens(&self, user: &str) -> BTreeMap<String, Token> {
        self.stored.get().tokens.get(user).cloned().unwrap_or_default()
    }

    /// Makes a token for a user, in place of one of that name. It is returned here and never again.
    pub async fn make_token(
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
    pub async fn remove_token(&self, user: &str, name: &str) -> Result<bool, HqError> {
        self.stored
            .change(|stored| Ok(stored.tokens.get_mut(user).is_some_and(|tokens| tokens.remove(name).is_some())))
            .await
    }

    /// Whose token this is.
    pub fn bearer(&self, token: &str, now: Timestamp) -> Option<Identity> {
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
    pub fn check(&self, header: &str) -> Option<Identity> {
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

/// Compares without telling by time where two texts differ.
fn same(left: &str, right: &str) -> bool {
    let key = hmac::Key::new(hmac::HMAC_SHA256, b"compare");
    hmac::verify(&key, left.as_bytes(), hmac::sign(&key, right.as_bytes()).as_ref()).is_ok()
}

/// A password that nobody guesses.
pub(crate) fn new_password() -> Result<String, HqError> {
    Ok(URL_SAFE_NO_PAD.encode(random_bytes::<15>()?))
}
