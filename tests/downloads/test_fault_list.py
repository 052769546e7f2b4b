"""What can go wrong between a hub and a file, and the test that shows what happens then.

The list is kept here so that a fault without a test is seen.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent.parent

FAULTS = """
The CDN closes the connection in the middle of a range
    test_a_connection_that_is_cut_goes_on_at_the_very_byte
    test_every_connection_cut_again_and_again_still_completes
It sends fewer bytes than its Content-Length says
    test_fewer_bytes_than_the_content_length_are_never_counted_as_all
A body without a length, or in chunks, ends early
    test_a_body_without_length_that_ends_early_is_noticed
    test_a_chunked_body_that_ends_early_is_noticed
It sends more bytes than were asked for
    test_more_bytes_than_the_range_are_not_written
It answers a range with 200 and everything
    test_one_answer_that_ignores_the_range_is_not_appended
    test_a_server_without_ranges_is_read_as_one_stream
It answers 200 with a right Content-Range
    test_a_200_with_a_right_content_range_is_taken_by_its_range
It answers 206 with a range that is shifted
    test_a_shifted_content_range_is_discarded_and_asked_again
    test_ranges_that_are_always_shifted_end_in_an_error_that_says_so
It answers 206 with another total size
    test_a_206_of_another_total_has_the_address_asked_anew
It answers 206 without Content-Range
    test_a_206_without_content_range_is_discarded
It answers multipart/byteranges
    test_multipart_ranges_are_refused
It compresses although plain bytes were asked for
    test_compressed_bytes_are_refused_and_the_header_is_named
    test_compressed_bytes_now_and_then_do_no_harm
A request could be understood in two ways
    test_every_byte_request_asks_for_identity_and_one_closed_range
The process died between the last byte and the rename
    test_a_partial_that_was_complete_when_the_process_died_needs_no_request
It answers 416 with another size
    test_a_416_of_another_size_has_the_address_asked_anew
The signed address expires midway
    test_addresses_that_expire_midway_are_resolved_once_for_all_connections
It answers every range with 403, and one stream with 200
    test_a_403_of_every_range_ends_in_a_single_stream
It answers 403 for good
    test_a_lasting_403_fails_soon_and_shows_what_the_server_says
    test_a_failed_transfer_keeps_its_bytes_for_the_retry
It answers 400, as for files that are too large for it
    test_a_lasting_400_fails_without_a_storm_of_retries
The hub limits the rate of resolves
    test_a_resolve_that_is_rate_limited_for_a_moment_goes_on_after_it
    test_a_long_rate_limit_of_a_resolve_is_shown_and_waited_out_by_all
    test_a_wait_for_the_rate_limit_can_be_left_at_once
A Retry-After is a date, a day, negative or nonsense, or no limit is reached at all
    test_a_retry_after_that_makes_no_sense_is_survived
    test_a_retry_after_of_a_day_is_no_wait_of_a_day
    test_requests_that_remain_are_no_reason_to_wait
The hub answers 500 to 504 with a page of HTML
    test_each_route_of_the_hub_may_fail_twice_and_its_pages_are_never_saved
The hub says 401: nothing there, private, or a wrong token
    test_a_private_repository_asks_for_a_token
    test_a_wrong_token_is_the_tokens_fault_not_the_repositorys
The repository is gated
    test_a_gated_repository_says_where_to_accept_its_licence
    test_a_repository_that_needs_a_licence_leaves_nothing
The repository, the commit or the file is missing, or disabled
    test_a_repository_that_does_not_exist_is_not_found
    test_a_commit_that_is_gone_is_not_a_missing_repository
    test_a_missing_file_is_named
    test_a_disabled_repository_is_said_to_be_disabled
    test_the_page_of_a_missing_file_is_never_saved
The repository was renamed
    test_a_renamed_repository_is_followed_and_kept_under_the_name_that_was_asked_for
The token or ~/.netrc would follow a redirect; https would become http
    test_a_private_repository_keeps_its_token_from_the_cdn
    test_a_password_in_netrc_goes_nowhere
    test_the_token_does_not_follow_a_redirect_to_another_origin
    test_https_is_not_left_for_http
Redirects go in a circle or nowhere
    test_redirects_in_a_circle_end
    test_a_redirect_that_must_not_be_followed_is_refused
What is resolved is not what was listed
    test_a_file_that_is_not_the_listed_one_is_refused_before_its_first_byte
The CDN's ETag looks like a digest, or changes
    test_the_etag_of_the_cdn_is_never_taken_for_a_digest
    test_another_etag_of_the_cdn_for_the_same_content_changes_nothing
main moves while a partial of older bytes is there
    test_the_middle_of_a_file_moves_main_and_the_old_bytes_are_not_mixed_in
    test_the_old_model_stays_whole_until_the_new_one_is_verified
main moves and the file stays as it is
    test_main_moves_without_the_file_and_no_byte_is_fetched
One bit is flipped
    test_one_flipped_bit_is_found_and_the_file_fetched_again
    test_a_flipped_bit_in_each_try_fails_and_leaves_nothing
The process is killed at any moment
    test_a_killed_download_goes_on_from_its_bytes
    test_kills_in_a_storm_lose_nothing
    test_a_crash_at_any_change_leaves_the_old_model_or_the_new_one
The sidecar is garbled, planted, of other content, or its partial is gone
    test_a_garbled_sidecar_means_starting_over
    test_a_sidecar_without_its_partial_means_starting_over
    test_a_partial_of_other_content_is_started_over
    test_what_is_planted_as_a_sidecar_is_neither_waited_for_nor_believed
Two processes, two threads or two programs want the same bytes
    test_two_processes_download_the_same_model_once
    test_two_threads_that_submit_the_same_bytes_at_once_fetch_them_once
    test_partials_of_other_programs_are_left_alone
The disk is full, over quota, read-only, or without links
    test_a_disk_that_fills_up_ends_in_a_clear_state_and_goes_on_once_freed
    test_a_full_disk_is_known_before_the_first_byte
    test_what_the_disk_refuses_becomes_an_error_with_a_remedy
    test_without_symlinks_a_snapshot_holds_hard_links
    test_without_any_links_the_flat_files_are_there
A connection falls silent, or drips
    test_a_connection_that_falls_silent_is_cut_and_its_rest_asked_again
    test_a_byte_now_and_then_is_no_transfer
    test_a_silent_transfer_can_be_left_at_once
The listing has pages, endless ones, or one at another host
    test_a_listing_in_pages_is_read_to_its_end
    test_a_tree_of_endless_new_pages_is_refused
    test_a_next_page_at_another_host_is_not_asked_for
The listing is hostile, or its names are odd
    test_a_listing_that_leads_out_of_the_cache_fails_the_job
    test_a_hostile_entry_makes_the_whole_listing_refused
    test_an_odd_name_is_fetched_to_its_own_place
    test_an_empty_file_is_a_file
A set lacks a shard, or one shard fails for good
    test_a_set_that_lacks_a_shard_is_refused_before_the_first_byte
    test_a_set_whose_second_shard_fails_is_not_seen_and_a_retry_fetches_only_that
A mirror refuses HEAD, sends the bytes itself, or has no manifests
    test_a_mirror_that_refuses_head_is_asked_for_one_byte
    test_a_mirror_that_sends_the_bytes_itself_works
    test_a_hub_without_manifests_is_asked_for_its_listing_alone
A server speaks HTTP/1.0, spells headers its own way, or sends no readable length
    test_a_hub_that_speaks_http_1_0_is_understood
    test_the_spelling_of_headers_does_not_matter
    test_an_unreadable_content_length_is_no_length
The hub is at an IPv6 address, or behind the system's proxy
    test_a_hub_and_a_cdn_at_ipv6_addresses_serve_bytes
    test_the_systems_proxy_is_used_for_bytes_too
"""


def entries() -> dict[str, list[str]]:
    """The tests of each fault."""
    found: dict[str, list[str]] = {}
    fault = ""
    for line in FAULTS.strip().splitlines():
        if line.startswith(" "):
            found[fault].append(line.strip())
        else:
            fault = line
            found[fault] = []
    return found


@pytest.fixture(scope="module")
def written() -> frozenset[str]:
    """The names of all tests there are."""
    files = [path.read_text(encoding="utf-8") for path in TESTS.rglob("test_*.py")]
    return frozenset(re.findall(r"^def (test_\w+)", "\n".join(files), re.MULTILINE))


@pytest.mark.parametrize("fault", entries())
def test_each_fault_has_its_tests(fault: str, written: frozenset[str]) -> None:
    named = entries()[fault]
    assert named
    assert [name for name in named if name not in written] == []
