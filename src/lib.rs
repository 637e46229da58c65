//! calbridge: two-way sync of meetings between Outlook and Salesforce.
