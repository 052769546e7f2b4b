"""Who may want to do harm, how, and the tests that show that it does not work.

Each row is an attack; its tests are named by file. Where we decided otherwise the row names the
page of the documentation that says so, with words that stand on it.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Mapping
from pathlib import Path

TESTS = Path(__file__).parent
DOCS = TESTS.parent / "docs"

#: What shows a row: tests as ``file::name``, or ``docs/page: words``.
Rows = Mapping[str, tuple[str, ...]]

STRANGER_IN_THE_NETWORK: Rows = {
    "an open interface on every address": (
        "test_config.py::test_a_bind_beyond_loopback_without_authentication_is_refused",
        "test_config.py::test_defaults_are_those_of_the_documentation",
    ),
    "asking an instance directly": (
        "instances/test_starts.py::test_the_child_gets_its_key_by_its_environment_only",
        "instances/test_starts.py::test_each_start_has_another_key",
        "instances/test_commandline.py::test_address_and_port_come_last_so_that_nothing_takes_them_from_us",
        "instances/test_environment.py::test_the_child_gets_its_own_key_whatever_was_configured",
    ),
    "guessing keys, or making us hash and write": (
        "access/test_keys.py::test_what_is_stored_is_a_plain_digest_of_256_random_bits",
        "access/test_keys.py::test_trying_keys_writes_nothing",
        "access/test_throttle.py::test_the_memory_of_addresses_is_bounded",
        "access/test_audit.py::test_a_flood_of_refusals_is_counted_and_not_written",
        "web/test_auth.py::test_wrong_keys_are_slowed_down_and_right_ones_never",
    ),
    "holding connections open": (
        "gateway/test_client.py::test_a_client_that_takes_nothing_is_noticed",
        "e2e/test_server_process.py::test_a_stop_does_not_wait_for_a_request_that_never_comes_whole",
        "e2e/test_slow_clients.py::test_a_request_that_never_comes_whole_takes_no_thread",
        "e2e/test_slow_clients.py::test_a_client_that_keeps_a_closed_connection_holds_up_nobody",
        "e2e/test_slow_clients.py::test_more_idle_clients_than_there_is_room_for_keep_nobody_out",
        "e2e/test_slow_clients.py::test_a_server_without_files_to_open_goes_on_with_whom_it_has",
        "e2e/test_slow_clients.py::test_who_asks_again_without_reading_takes_no_thread",
    ),
    "taking every thread with streams": (
        "gateway/test_limits.py::test_more_requests_than_there_is_room_for_are_told_at_once",
        "gateway/test_limits.py::test_one_key_cannot_take_every_place",
        "e2e/test_busy_server.py::test_with_every_place_taken_the_rest_of_the_server_answers",
        "web/test_streams.py::test_streams_leave_threads_for_everything_else",
    ),
    "large bodies and JSON that explodes": (
        "gateway/test_limits.py::test_a_body_that_is_too_large_is_refused_whichever_way_it_comes",
        "gateway/test_routing.py::test_a_body_of_millions_of_values_is_refused_before_it_is_read",
        "web/test_forms.py::test_a_body_of_more_than_a_mebibyte_is_refused",
        "web/test_forms.py::test_a_body_that_is_not_one_clear_json_object_is_told_why",
        "e2e/test_malformed.py::test_a_management_body_that_is_too_large_is_refused_and_not_kept",
    ),
    "requests of two meanings": (
        "e2e/test_malformed.py::test_a_request_of_two_meanings_is_refused_and_its_connection_closed",
        "gateway/test_headers.py::test_hop_by_hop_headers_end_here_with_those_that_connection_names",
    ),
    "learning what runs here": (
        "gateway/test_requests.py::test_health_is_for_everyone_and_says_nothing_else",
        "web/test_every_key_at_every_route.py::test_each_kind_of_key_meets_at_every_route_what_the_table_says",
    ),
}

PAGE_IN_A_BROWSER: Rows = {
    "DNS rebinding": (
        "web/test_hosts_and_proxies.py::test_a_strange_host_is_refused_and_told_the_setting",
    ),
    "forged forms": (
        "web/test_forged_forms.py::test_every_unsafe_page_route_refuses_a_form_that_is_not_ours",
        "web/test_login.py::test_the_cookie_opens_no_interface",
        "e2e/test_malformed.py::test_a_body_that_any_web_page_could_send_is_refused",
        "web/test_auth.py::test_without_keys_a_page_of_another_site_changes_nothing",
    ),
    "login forgery, fixation, replay": (
        "web/test_login.py::test_a_login_gives_a_new_session_and_ends_the_old_one",
        "web/test_login.py::test_log_out_everywhere_ends_every_session_this_one_too",
        "access/test_sessions.py::test_an_unused_session_runs_out",
        "access/test_sessions.py::test_a_used_session_lives_on_but_not_for_ever",
    ),
    "reading answers from another origin": (
        "web/test_browser_headers.py::test_no_other_origin_is_told_anything",
        "web/test_browser_headers.py::test_an_allowed_origin_may_call_v1_and_nothing_else",
        "gateway/test_headers.py::test_an_instance_sets_nothing_for_our_origin",
    ),
    "frames and scripts": (
        "web/test_browser_headers.py::test_every_answer_binds_the_browser",
        "web/test_browser_headers.py::test_no_template_has_anything_inline_or_unescaped",
        "web/test_pages_escaping.py::test_no_foreign_text_becomes_markup_on_any_page",
    ),
    "llama-server's own page in our origin": (
        "gateway/test_requests.py::test_what_is_not_inference_is_not_there",
        "gateway/test_requests.py::test_a_management_key_reaches_everything_of_a_running_instance",
    ),
    "being sent elsewhere after the login": (
        "web/test_login.py::test_a_login_leads_to_pages_of_ours_only",
    ),
}

HOLDER_OF_AN_INFERENCE_KEY: Rows = {
    "other people's instances": (
        "gateway/test_requests.py::test_a_key_sees_and_uses_only_its_instances",
        "web/test_unknown_and_forbidden.py::test_what_is_forbidden_answers_as_what_does_not_exist",
        "web/test_unknown_and_forbidden.py::test_what_is_forbidden_is_not_started",
        "instances/test_supervisor.py::test_a_number_never_comes_again",
    ),
    "what else llama-server offers": (
        "gateway/test_requests.py::test_what_is_not_inference_is_not_there",
        "gateway/test_requests.py::test_an_instances_properties_say_nothing_of_the_machine",
        "gateway/test_paths.py::test_a_routers_models_are_shown_without_their_command_lines",
        "e2e/test_malformed.py::test_no_spelling_of_a_path_leads_an_inference_key_elsewhere",
    ),
    "generations that outlive their client": (
        "gateway/test_headers.py::test_a_generation_cannot_be_told_to_outlive_its_client",
        "gateway/test_streams.py::test_a_client_that_leaves_before_the_first_token_stops_the_generation",
    ),
    "having addresses fetched": (
        "gateway/test_requests.py::test_an_address_to_fetch_is_refused",
        "gateway/test_media.py::test_a_remote_address_is_found",
    ),
    "taking more than a share": (
        "gateway/test_limits.py::test_one_key_cannot_take_every_place",
        "docs/deployment: max_streams_per_key",
    ),
    "making instances evict each other": (
        "instances/test_eviction.py::test_those_who_wait_are_served_in_their_order",
        "instances/test_eviction.py::test_what_was_just_started_for_a_request_serves_it_before_it_makes_room",
        "docs/deployment: take turns on the memory",
    ),
    "a revoked key that goes on": (
        "gateway/test_streams.py::test_a_deleted_key_ends_its_streams_and_no_others",
        "gateway/test_streams.py::test_a_deleted_key_ends_its_prefill_too",
    ),
    "tricks with a model's name": (
        "gateway/test_routing.py::test_a_slash_may_part_an_instance_from_its_model",
        "gateway/test_routing.py::test_a_wrong_name_names_the_field",
        "instances/test_options.py::test_bad_names",
    ),
}

HOLDER_OR_THIEF_OF_A_MANAGEMENT_KEY: Rows = {
    "running programs": (
        "instances/test_permissions.py::test_command_override_needs_the_switch",
        "docs/deployment: may run programs as the user",
    ),
    "smuggling flags": (
        "instances/test_permissions.py::test_a_dangerous_flag_needs_the_switch",
        "instances/test_options.py::test_a_value_that_begins_with_a_dash_never_becomes_a_flag",
        "instances/test_options.py::test_what_llamactl_decides_itself_cannot_be_set",
        "instances/test_permissions.py::test_a_preset_is_no_way_around_the_switch",
    ),
    "smuggling variables": (
        "instances/test_permissions.py::test_a_dangerous_variable_needs_the_switch",
        "instances/test_permissions.py::test_our_own_variables_cannot_be_set_at_all",
        "instances/test_environment.py::test_the_servers_own_variables_arrive_less_its_secrets",
    ),
    "reading secrets": (
        "web/test_secrets.py::test_no_answer_to_a_question_holds_a_secret",
        "web/test_secrets.py::test_a_stolen_database_opens_nothing",
        "web/test_audit.py::test_a_key_in_the_place_of_something_else_is_not_kept",
        "instances/test_starts.py::test_no_log_has_the_value_of_a_flag_that_opens_something",
        "test_database.py::test_the_file_is_for_its_owner_only",
    ),
    "doing it unseen": (
        "web/test_audit.py::test_what_a_program_changes_is_written_down_with_its_end",
        "web/test_audit.py::test_what_a_person_does_on_the_pages_is_written_down_by_session",
        "web/test_audit.py::test_no_row_holds_a_secret_or_the_value_of_an_option",
    ),
}

HUB_OR_REPOSITORY: Rows = {
    "names that lead elsewhere": (
        "models/test_names.py::test_an_unsafe_file_name_is_refused_whole",
        "hub/test_repository.py::test_a_hostile_entry_makes_the_whole_listing_refused",
    ),
    "links planted in a cache": (
        "models/test_removal.py::test_planted_links_lead_nowhere",
        "downloads/test_partfile.py::test_a_planted_link_is_neither_followed_nor_removed",
    ),
    "other bytes than promised": (
        "downloads/test_faults.py::test_a_flipped_bit_in_each_try_fails_and_leaves_nothing",
        "downloads/test_faults.py::test_more_bytes_than_the_range_are_not_written",
    ),
    "metadata without end": (
        "hub/test_repository.py::test_an_answer_of_enormous_length_is_cut_off",
        "hub/test_repository.py::test_a_tree_of_endless_new_pages_is_refused",
        "hub/test_repository.py::test_a_compressed_answer_is_refused",
    ),
    "taking the token": (
        "hub/test_credentials.py::test_the_token_reaches_the_hub_and_never_the_cdn",
        "hub/test_credentials.py::test_a_netrc_replaces_no_token_and_reaches_no_cdn",
        "hub/test_credentials.py::test_a_public_hub_cannot_lead_into_a_private_network",
    ),
    "a hostile GGUF": (
        "models/test_gguf.py::test_a_damaged_or_hostile_file_is_no_gguf",
        "docs/deployment: parser of llama.cpp",
    ),
    "a preset in the repository": (
        "models/test_publication.py::test_the_preset_lies_in_the_flat_cache_alone",
        "instances/test_presetfile.py::test_no_line_of_an_author_makes_the_reading_slow",
    ),
    "text that terminals or browsers obey": (
        "web/test_pages_escaping.py::test_what_terminals_obey_and_what_hides_is_seen_or_gone",
        "web/test_pages_escaping.py::test_no_foreign_text_becomes_markup_on_any_page",
    ),
}

WRONG_PROXY: Rows = {
    "forwarded headers from anybody": (
        "web/test_hosts_and_proxies.py::test_forwarded_headers_count_only_from_trusted_peers",
        "web/test_hosts_and_proxies.py::test_a_forwarded_host_is_never_believed",
        "web/test_login.py::test_a_proxy_that_is_not_trusted_cannot_choose_the_address_that_is_counted",
    ),
    "cookies without TLS": (
        "web/test_login.py::test_behind_a_trusted_proxy_with_tls_the_cookie_is_secure",
    ),
}

KEYS: Rows = {
    "a weak key that somebody typed": (
        "test_config.py::test_a_bad_file_is_refused_with_file_line_and_key",
    ),
    "a key in an address": (
        "web/test_auth.py::test_a_key_in_the_query_is_refused_even_if_it_is_right",
    ),
    "an expired or revoked key": (
        "access/test_keys.py::test_a_key_expires_and_a_clock_set_back_does_not_revive_it",
        "access/test_keys.py::test_a_deleted_key_is_void_at_once_and_after_a_restart",
    ),
}

MODEL: Mapping[str, Rows] = {
    "a stranger in the network": STRANGER_IN_THE_NETWORK,
    "a page in the user's browser": PAGE_IN_A_BROWSER,
    "the holder of an inference key": HOLDER_OF_AN_INFERENCE_KEY,
    "the holder, or thief, of a management key": HOLDER_OR_THIEF_OF_A_MANAGEMENT_KEY,
    "a repository, the hub, or a mirror": HUB_OR_REPOSITORY,
    "a proxy that is configured wrongly": WRONG_PROXY,
    "keys themselves": KEYS,
}


@functools.cache
def names_in(file: str) -> frozenset[str]:
    tree = ast.parse((TESTS / file).read_text(encoding="utf-8"))
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))


def shown(what: str) -> bool:
    """Whether the test, or the words, exist."""
    if what.startswith("docs/"):
        page, _, words = what.removeprefix("docs/").partition(": ")
        return words in " ".join((DOCS / f"{page}.md").read_text(encoding="utf-8").split())
    file, _, name = what.partition("::")
    return (TESTS / file).is_file() and name in names_in(file)


def test_every_attack_has_a_test_or_a_word_in_the_documentation() -> None:
    missing = [
        f"{who}, {attack}: {what}"
        for who, rows in MODEL.items()
        for attack, whats in rows.items()
        for what in whats
        if not shown(what)
    ]
    assert missing == []
    assert all(whats for rows in MODEL.values() for whats in rows.values())
