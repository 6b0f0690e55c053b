//! The statements that we run on a server, and their text. The only place where SQL for tenants' servers is made.
//!
//! Names and literals are quoted here, and every name is one that [`super::names`] made.

use std::fmt::Write;

/// One statement on a server, run in the database `postgres` by the provisioner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Statement {
    /// `CREATE DATABASE`, closed to connections; runs alone, outside a transaction.
    CreateDatabase {
        /// Its name.
        name: String,
        /// The template.
        template: String,
    },
    /// `CREATE DATABASE` from `template0`, open to connections; runs alone.
    CreateEmptyDatabase {
        /// Its name.
        name: String,
    },
    /// Gives a database to another role.
    DatabaseOwner {
        /// The database.
        name: String,
        /// The role; whoever says this must be a member of it.
        owner: String,
    },
    /// Needs a database without sessions.
    RenameDatabase {
        /// The name it has.
        from: String,
        /// The name it gets.
        to: String,
    },
    /// `DROP DATABASE`; runs alone, outside a transaction.
    DropDatabase {
        /// Its name.
        name: String,
    },
    /// Sets our mark.
    CommentDatabase {
        /// The database.
        name: String,
        /// The mark.
        comment: String,
    },
    /// Opens or closes a database.
    AllowConnections {
        /// The database.
        name: String,
        /// Open.
        allow: bool,
    },
    /// Most connections to a database.
    ConnectionLimit {
        /// The database.
        name: String,
        /// -1: without limit.
        limit: i32,
    },
    /// `ALTER DATABASE … SET` or `RESET`.
    DatabaseSetting {
        /// The database.
        name: String,
        /// The parameter.
        key: String,
        /// None resets it.
        value: Option<String>,
    },
    /// Grants on a database.
    GrantDatabase {
        /// The database.
        name: String,
        /// `CONNECT`, `TEMPORARY`.
        privileges: Vec<&'static str>,
        /// The role.
        to: String,
    },
    /// Takes every right on a database away.
    RevokeDatabase {
        /// The database.
        name: String,
        /// The role; "" is PUBLIC.
        from: String,
    },
    /// Makes a role; a login gets a verifier.
    CreateRole {
        /// Its name.
        name: String,
        /// May log in.
        login: bool,
        /// SCRAM verifier.
        verifier: Option<String>,
        /// Roles it becomes a member of.
        member_of: Vec<String>,
    },
    /// Lets a role log in or not.
    RoleLogin {
        /// The role.
        name: String,
        /// May log in.
        login: bool,
    },
    /// Sets the verifier.
    RolePassword {
        /// The role.
        name: String,
        /// SCRAM verifier.
        verifier: String,
    },
    /// Takes CREATEDB, CREATEROLE, NOINHERIT, an expiry and a connection limit of its own away.
    RolePlain {
        /// The role.
        name: String,
    },
    /// Notes on a role which verifier it was given.
    CommentRole {
        /// The role.
        name: String,
        /// The note.
        comment: String,
    },
    /// Makes `to` a member of `role`.
    GrantRole {
        /// The role that is granted.
        role: String,
        /// The new member.
        to: String,
    },
    /// Ends the membership of `from` in `role`.
    RevokeRole {
        /// The role that is revoked.
        role: String,
        /// The member.
        from: String,
    },
    /// `ALTER ROLE … SET`.
    RoleSetting {
        /// The role.
        name: String,
        /// The parameter.
        key: String,
        /// Its value.
        value: String,
    },
    /// `ALTER ROLE … [IN DATABASE …] RESET ALL`.
    ResetRole {
        /// The role.
        name: String,
        /// "" is every database.
        database: String,
    },
    /// `DROP ROLE`.
    DropRole {
        /// Its name.
        name: String,
    },
    /// Ends every session in a database.
    EndSessions {
        /// The database.
        name: String,
    },
    /// Ends every session of a role.
    EndSessionsOf {
        /// The role.
        name: String,
    },
}

impl Statement {
    /// The database that an altering statement is about.
    pub fn database(&self) -> Option<&str> {
        match self {
            Self::CommentDatabase { name, .. }
            | Self::AllowConnections { name, .. }
            | Self::DatabaseOwner { name, .. }
            | Self::ConnectionLimit { name, .. }
            | Self::DatabaseSetting { name, .. }
            | Self::GrantDatabase { name, .. }
            | Self::RevokeDatabase { name, .. } => Some(name),
            _ => None,
        }
    }

    /// The role that an altering statement is about.
    pub fn role(&self) -> Option<&str> {
        match self {
            Self::RoleLogin { name, .. }
            | Self::RolePassword { name, .. }
            | Self::RolePlain { name }
            | Self::CommentRole { name, .. }
            | Self::RoleSetting { name, .. }
            | Self::ResetRole { name, .. } => Some(name),
            Self::GrantRole { to, .. } => Some(to),
            Self::RevokeRole { from, .. } => Some(from),
            _ => None,
        }
    }

    /// Whether PostgreSQL refuses it in a transaction.
    pub const fn runs_alone(&self) -> bool {
        matches!(self, Self::CreateDatabase { .. } | Self::CreateEmptyDatabase { .. } | Self::DropDatabase { .. })
    }

    /// Its text.
    pub fn text(&self) -> String {
        match self {
            Self::CreateDatabase { name, template } => {
                format!(
                    "CREATE DATABASE {} TEMPLATE {} STRATEGY wal_log ALLOW_CONNECTIONS false",
                    identifier(name),
                    identifier(template)
                )
            }
            Self::CreateEmptyDatabase { name } => {
                format!("CREATE DATABASE {} TEMPLATE template0 ENCODING 'UTF8'", identifier(name))
            }
            Self::RenameDatabase { from, to } => {
                format!("ALTER DATABASE {} RENAME TO {}", identifier(from), identifier(to))
            }
            Self::DatabaseOwner { name, owner } => {
                format!("ALTER DATABASE {} OWNER TO {}", identifier(name), identifier(owner))
            }
            Self::DropDatabase { name } => format!("DROP DATABASE {}", identifier(name)),
            Self::CommentDatabase { name, comment } => {
                format!("COMMENT ON DATABASE {} IS {}", identifier(name), literal(comment))
            }
            Self::AllowConnections { name, allow } => {
                format!("ALTER DATABASE {} ALLOW_CONNECTIONS {allow}", identifier(name))
            }
            Self::ConnectionLimit { name, limit } => {
                format!("ALTER DATABASE {} CONNECTION LIMIT {limit}", identifier(name))
            }
            Self::DatabaseSetting { name, key, value: Some(value) } => {
                format!("ALTER DATABASE {} SET {} = {}", identifier(name), identifier(key), literal(value))
            }
            Self::DatabaseSetting { name, key, value: None } => {
                format!("ALTER DATABASE {} RESET {}", identifier(name), identifier(key))
            }
            Self::GrantDatabase { name, privileges, to } => {
                format!("GRANT {} ON DATABASE {} TO {}", privileges.join(", "), identifier(name), grantee(to))
            }
            Self::RevokeDatabase { name, from } => {
                format!("REVOKE ALL ON DATABASE {} FROM {}", identifier(name), grantee(from))
            }
            other => other.role_text(),
        }
    }

    fn role_text(&self) -> String {
        match self {
            Self::CreateRole { name, login, verifier, member_of } => {
                let mut text = format!("CREATE ROLE {} {}", identifier(name), if *login { "LOGIN" } else { "NOLOGIN" });
                if let Some(verifier) = verifier {
                    let _ = write!(text, " PASSWORD {}", literal(verifier));
                }
                if !member_of.is_empty() {
                    let roles: Vec<_> = member_of.iter().map(|role| identifier(role)).collect();
                    let _ = write!(text, " IN ROLE {}", roles.join(", "));
                }
                text
            }
            Self::RoleLogin { name, login } => {
                format!("ALTER ROLE {} {}", identifier(name), if *login { "LOGIN" } else { "NOLOGIN" })
            }
            Self::RolePassword { name, verifier } => {
                format!("ALTER ROLE {} PASSWORD {}", identifier(name), literal(verifier))
            }
            Self::RolePlain { name } => {
                let plain = "NOCREATEDB NOCREATEROLE INHERIT CONNECTION LIMIT -1 VALID UNTIL 'infinity'";
                format!("ALTER ROLE {} {plain}", identifier(name))
            }
            Self::CommentRole { name, comment } => {
                format!("COMMENT ON ROLE {} IS {}", identifier(name), literal(comment))
            }
            Self::GrantRole { role, to } => format!("GRANT {} TO {}", identifier(role), identifier(to)),
            Self::RevokeRole { role, from } => format!("REVOKE {} FROM {} CASCADE", identifier(role), identifier(from)),
            Self::RoleSetting { name, key, value } => {
                format!("ALTER ROLE {} SET {} = {}", identifier(name), identifier(key), literal(value))
            }
            Self::ResetRole { name, database } if database.is_empty() => {
                format!("ALTER ROLE {} RESET ALL", identifier(name))
            }
            Self::ResetRole { name, database } => {
                format!("ALTER ROLE {} IN DATABASE {} RESET ALL", identifier(name), identifier(database))
            }
            Self::DropRole { name } => format!("DROP ROLE {}", identifier(name)),
            Self::EndSessions { name } => {
                format!(
                    // Those of autovacuum are PostgreSQL's, which ends them itself where they are in the way: asking for it is
                    // refused to whoever is no superuser, and would fail the whole statement. They have no user. (What kind of
                    // session another's is, is shown to superusers only.)
                    "SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity WHERE datname = {} AND usesysid IS NOT NULL",
                    literal(name)
                )
            }
            Self::EndSessionsOf { name } => {
                format!(
                    "SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity WHERE usename = {}",
                    literal(name)
                )
            }
            other => unreachable!("{other:?} is about a database"),
        }
    }
}

/// Statements that take effect together: one transaction, or one statement that runs alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch(Vec<Statement>);

impl Batch {
    /// One statement outside a transaction.
    pub fn alone(statement: Statement) -> Self {
        Self(vec![statement])
    }

    /// One transaction.
    ///
    /// # Panics
    /// A statement that PostgreSQL refuses in a transaction is a mistake in the code that made the batch.
    pub fn transaction(statements: Vec<Statement>) -> Self {
        assert!(
            !statements.iter().any(Statement::runs_alone),
            "a statement that runs alone in a transaction: {statements:?}"
        );
        Self(statements)
    }

    /// Its statements, in order.
    pub fn statements(&self) -> &[Statement] {
        &self.0
    }

    /// Its text. Several statements in one message are one implicit transaction in PostgreSQL.
    pub fn text(&self) -> String {
        self.0.iter().map(Statement::text).collect::<Vec<_>>().join(";\n")
    }

    /// Its text without verifiers, for logs and errors.
    pub fn summary(&self) -> String {
        self.0
            .iter()
            .map(|statement| statement.text().split(" PASSWORD ").next().unwrap_or_default().to_owned())
            .collect::<Vec<_>>()
            .join("; ")
    }
}

/// A quoted identifier.
pub fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A quoted literal; standard_conforming_strings is on wherever we connect.
pub fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn grantee(role: &str) -> String {
    if role.is_empty() { "PUBLIC".into() } else { identifier(role) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_literals_cannot_end_their_quotes() {
        assert_eq!(identifier("a\"; DROP TABLE x"), "\"a\"\"; DROP TABLE x\"");
        assert_eq!(literal("o'clock"), "'o''clock'");
    }

    #[test]
    fn a_summary_holds_no_verifier() {
        let batch = Batch::transaction(vec![Statement::CreateRole {
            name: "tenant_x_a".into(),
            login: true,
            verifier: Some("SCRAM-SECRET".into()),
            member_of: vec![],
        }]);
        assert!(batch.text().contains("SCRAM-SECRET"));
        assert!(!batch.summary().contains("SCRAM-SECRET"));
    }
}
