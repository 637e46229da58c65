//! The list of all cases that a store must pass; each store makes tests of it.

/// Hands all cases that need one store to a macro.
macro_rules! cases {
    ($make:ident) => {
        $make! {
            contract:
                a_burst_becomes_one_row_that_is_due_after_the_quiet_window,
                an_unending_burst_is_due_at_its_longest_wait,
                a_deletion_in_a_burst_is_not_forgotten,
                a_signal_during_a_run_survives_it_and_counts_once,
                thousands_of_records_are_accepted_in_one_batch,
                positions_duplicates_and_rejects_are_kept,
                a_flood_of_messages_is_counted_and_only_the_newest_of_each_reason_are_kept,
                a_link_comes_back_as_it_was_written,
                a_link_is_not_written_over_a_newer_revision,
                two_links_never_share_a_record_but_a_tombstone_gives_it_free,
                a_fenced_commit_leaves_no_trace_and_its_neighbours_stand,
                a_dead_letter_stays_one_until_its_meeting_is_mended;
            contract_facts:
                facts_come_in_the_order_of_the_stream_and_again_until_they_are_dropped,
                a_change_event_delivered_again_adds_nothing,
                what_says_nothing_about_mapped_fields_is_not_kept,
                a_change_during_a_run_is_given_to_the_next_one,
                facts_follow_their_record_into_the_lane_that_takes_it_in,
                a_meeting_that_is_over_keeps_its_facts_until_told_otherwise,
                values_come_back_as_they_were_told;
            contract_lanes:
                a_held_lane_is_not_given_to_a_second_worker,
                a_dead_workers_lane_is_taken_over_even_without_a_signal,
                the_longest_waiting_lanes_come_first_and_no_more_than_asked,
                a_lane_that_waits_runs_at_its_time_or_at_the_next_signal,
                a_lease_does_not_care_what_the_engines_clock_says,
                a_lease_that_ends_gives_the_lane_to_the_next_worker,
                two_new_records_of_one_meeting_become_one_lane,
                an_unlinked_record_joins_the_lane_of_its_link,
                two_links_that_share_a_name_stay_apart,
                the_echo_of_a_creation_ends_in_the_lane_that_created,
                a_stamp_found_in_a_record_leads_to_its_link,
                history_from_before_a_join_is_part_of_the_story;
            contract_people:
                a_census_counts_what_others_want_and_what_they_used_up,
                no_more_is_used_up_than_there_is_and_a_refused_plan_leaves_no_trace,
                what_is_held_is_listed_until_it_is_held_no_more,
                who_answers_a_hold_without_a_link_has_its_record_read,
                an_instruction_wakes_its_lane_and_stays_until_it_is_followed;
            contract_trace:
                a_meeting_is_found_by_every_name_it_has,
                a_meeting_is_found_by_words_of_any_subject_it_had,
                a_meeting_is_found_by_versions_it_had,
                a_deleted_meeting_and_one_that_was_never_linked_are_found,
                a_mailboxs_day_lists_the_meetings_that_start_in_it,
                a_name_of_any_length_and_content_is_kept_and_found,
                an_enrolment_keeps_its_first_day,
                subscriptions_are_kept_until_dropped,
                status_counts_what_waits;
        }
    };
}

/// Hands all cases that need two stores on one database to a macro.
macro_rules! crowds {
    ($make:ident) => {
        $make! {
            workers_that_claim_at_once_share_no_lane,
            signals_taken_in_at_once_are_all_counted,
            signals_during_runs_are_neither_lost_nor_counted_twice,
            records_of_one_meeting_end_in_one_lane_whoever_joins_first,
            the_echo_of_a_creation_ends_in_its_lane_whichever_is_first,
            rejects_of_two_listeners_are_counted_once_each,
            a_second_instance_takes_over_and_the_first_is_fenced,
        }
    };
}

pub(crate) use {cases, crowds};
