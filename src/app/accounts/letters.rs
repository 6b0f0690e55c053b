//! What the mails of accounts say.

use crate::api::routing::RoutingEntry;
use crate::app::mail::Letter;

/// To somebody who shall become a user.
pub fn invitation(tenant: &RoutingEntry, to: (&str, &str), by: &str, link: &str) -> Letter {
    letter(
        tenant,
        to,
        format!("Your account at {}", tenant.display_name),
        &format!(
            "{by} has made an account for you at {}.\n\nOpen this link to choose your password. It is good for seven days:\n\n\
             {link}\n\nIf you did not expect this, you need not do anything.",
            tenant.display_name
        ),
    )
}

/// To somebody who forgot the password, or says so.
pub fn reset(tenant: &RoutingEntry, to: (&str, &str), link: &str) -> Letter {
    letter(
        tenant,
        to,
        format!("Choose a new password at {}", tenant.display_name),
        &format!(
            "Somebody, probably you, asked for a new password at {}.\n\nOpen this link to choose one. It is good once, for one \
             hour:\n\n{link}\n\nIf it was not you, you need not do anything: your password stays as it is.",
            tenant.display_name
        ),
    )
}

/// To an address that somebody says is theirs.
pub fn verification(tenant: &RoutingEntry, to: (&str, &str), link: &str) -> Letter {
    letter(
        tenant,
        to,
        format!("Is this your address at {}?", tenant.display_name),
        &format!(
            "This address was given for an account at {}.\n\nIf it is yours, open this link and say so. It is good for one \
             day:\n\n{link}\n\nIf it is not, you need not do anything.",
            tenant.display_name
        ),
    )
}

/// To the address that an account had before.
pub fn address_changed(tenant: &RoutingEntry, to: (&str, &str)) -> Letter {
    letter(
        tenant,
        to,
        format!("Your address at {} was changed", tenant.display_name),
        &format!(
            "Your account at {} has another e-mail address from now on, and no mail will be sent to this one.\n\nIf it was \
             not you, tell your administrator at once.",
            tenant.display_name
        ),
    )
}

fn letter(tenant: &RoutingEntry, (name, address): (&str, &str), subject: String, text: &str) -> Letter {
    Letter {
        from: tenant.display_name.clone(),
        to: (name.to_owned(), address.to_owned()),
        subject,
        text: format!("Hello {name},\n\n{text}\n\n-- \n{}\n", tenant.display_name),
    }
}
