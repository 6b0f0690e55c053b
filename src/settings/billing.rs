//! What billing needs to know, as flags and variables.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use jiff::Timestamp;
use jiff::civil::Date;
use uuid::Uuid;

/// Settings of `billing`.
#[derive(Args, Clone, Debug)]
pub struct BillingSettings {
    /// What to do.
    #[command(subcommand)]
    pub action: BillingAction,
}

/// What is done about subscriptions.
#[derive(Subcommand, Clone, Debug)]
pub enum BillingAction {
    /// Takes Stripe's events at POST /stripe/webhook.
    Serve(BillingServeSettings),
    /// Sets a tenant's subscription by hand, for customers without Stripe.
    Set {
        /// Uuid of the tenant: `status.uuid`.
        #[arg(long)]
        tenant: Uuid,
        /// What it is.
        #[arg(long, value_enum, default_value_t = ManualStatus::Active)]
        status: ManualStatus,
        /// Name of the Plan that is paid for, for the bill: which Plan the tenant has is `spec.planRef` of its object.
        #[arg(long)]
        plan: Option<String>,
        /// When it ends: 2027-01-01 (its first instant, UTC) or 2027-01-01T12:00:00Z.
        #[arg(long, value_parser = until)]
        until: Timestamp,
        /// Who does it.
        #[command(flatten)]
        who: Who,
    },
    /// Ends a tenant's subscription that was set by hand, now. One of Stripe's is ended at Stripe.
    End {
        /// Uuid of the tenant.
        #[arg(long)]
        tenant: Uuid,
        /// Who does it.
        #[command(flatten)]
        who: Who,
    },
    /// Lists subscriptions; of several of one tenant the first one counts.
    List {
        /// Only this tenant's.
        #[arg(long)]
        tenant: Option<Uuid>,
        /// Where they are.
        #[command(flatten)]
        central: CentralArguments,
    },
    /// Lists Stripe's events, the newest first.
    Events {
        /// Only this tenant's.
        #[arg(long)]
        tenant: Option<Uuid>,
        /// Only those that need somebody: no tenant is known for them, or they could not be read.
        #[arg(long)]
        unmatched: bool,
        /// How many.
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(i64).range(1..=10_000))]
        most: i64,
        /// Where they are.
        #[command(flatten)]
        central: CentralArguments,
    },
    /// Says whose a subscription of Stripe's is whose events name no tenant.
    Assign {
        /// Stripe's id of it, sub_…
        #[arg(long)]
        subscription: String,
        /// Uuid of the tenant.
        #[arg(long)]
        tenant: Uuid,
        /// Who does it.
        #[command(flatten)]
        who: Who,
    },
}

/// Settings of `billing serve`.
#[derive(Args, Clone, Debug)]
pub struct BillingServeSettings {
    /// File with the endpoint's secrets (whsec_…), separated by commas or lines; read again for each event, so that they can
    /// be replaced while it runs.
    #[arg(long, env = "MOS_STRIPE_WEBHOOK_SECRET_FILE")]
    pub secret_file: Option<PathBuf>,
    /// The endpoint's secrets, separated by commas.
    #[arg(
        long,
        env = "MOS_STRIPE_WEBHOOK_SECRET",
        hide_env_values = true,
        required_unless_present = "secret_file",
        conflicts_with = "secret_file"
    )]
    pub secret: Option<String>,
    /// Address of /stripe/webhook.
    #[arg(long, env = "MOS_LISTEN", default_value = "0.0.0.0:9000")]
    pub listen: SocketAddr,
    /// Address of /healthz and /readyz.
    #[arg(long, env = "MOS_HEALTH_ADDR", default_value = "0.0.0.0:8081")]
    pub health_addr: SocketAddr,
    /// Address of /metrics.
    #[arg(long, env = "MOS_METRICS_ADDR", default_value = "0.0.0.0:9090")]
    pub metrics_addr: SocketAddr,
    /// Where events are kept.
    #[command(flatten)]
    pub central: CentralArguments,
}

/// The central database.
#[derive(Args, Clone, Debug)]
pub struct CentralArguments {
    /// Connection of the central database, postgres://…
    #[arg(long, env = "MOS_CENTRAL_URL", hide_env_values = true)]
    pub central_url: String,
    /// PEM file with the certificate authority of the central database.
    #[arg(long, env = "MOS_CENTRAL_CA")]
    pub central_ca: Option<PathBuf>,
}

/// Who changes something, and where.
#[derive(Args, Clone, Debug)]
pub struct Who {
    /// Who does it, for the audit trail: an e-mail address.
    #[arg(long, env = "MOS_ACTOR", default_value = "command line")]
    pub by: String,
    /// Where subscriptions are.
    #[command(flatten)]
    pub central: CentralArguments,
}

/// What a subscription may be set to.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum ManualStatus {
    /// Paid for; ends at its end.
    Active,
    /// Being tried out; ends at its end.
    Trialing,
    /// An invoice is open; served until its end.
    #[value(name = "past_due")]
    PastDue,
    /// An invoice was not paid: lapsed at once.
    Unpaid,
    /// Paused: lapsed at once.
    Paused,
}

impl ManualStatus {
    /// Stripe's name of it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Trialing => "trialing",
            Self::PastDue => "past_due",
            Self::Unpaid => "unpaid",
            Self::Paused => "paused",
        }
    }
}

fn until(text: &str) -> Result<Timestamp, String> {
    let day = || text.parse::<Date>().ok()?.to_zoned(jiff::tz::TimeZone::UTC).ok().map(|day| day.timestamp());
    let found = text.parse().ok().or_else(day);
    found.ok_or_else(|| format!("`{text}` is neither a day, as 2027-01-01, nor an instant, as 2027-01-01T12:00:00Z"))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::settings::{Cli, Role};

    fn action(arguments: &str) -> Result<BillingAction, clap::Error> {
        let all = format!("maintenance-os billing {arguments} --central-url postgres://central/x");
        match Cli::try_parse_from(all.split_whitespace())?.role {
            Role::Billing(settings) => Ok(settings.action),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_subscription_is_set_with_a_day_or_an_instant_as_its_end() {
        let tenant = "7b0f3c52-5d0e-4b9e-9a55-0d1a2c7f1e11";
        for (text, expected) in [
            ("2027-01-01", "2027-01-01T00:00:00Z"),
            ("2027-01-01T12:00:00Z", "2027-01-01T12:00:00Z"),
            ("2027-01-01T01:00:00+01:00", "2027-01-01T00:00:00Z"),
        ] {
            let found = action(&format!("set --tenant {tenant} --plan pro --until {text}")).unwrap();
            let BillingAction::Set { until, status, plan, who, .. } = found else { panic!("{found:?}") };
            assert_eq!(until, expected.parse().unwrap(), "{text}");
            assert_eq!((status, plan.as_deref(), who.by.as_str()), (ManualStatus::Active, Some("pro"), "command line"));
        }
        assert!(action(&format!("set --tenant {tenant} --until tomorrow")).is_err());
        assert!(action(&format!("set --tenant {tenant} --until 2027-01-01 --status canceled")).is_err());
        assert!(action("set --tenant acme --until 2027-01-01").is_err());
    }

    #[test]
    fn the_webhook_needs_a_secret_from_exactly_one_place() {
        assert!(action("serve").is_err());
        assert!(action("serve --secret whsec_a").is_ok());
        assert!(action("serve --secret-file /secret").is_ok());
        assert!(action("serve --secret-file /secret --secret whsec_a").is_err());
    }
}
