"""Variables lie over the file where they are ours, and under it where they are those of Vault and Consul."""

import pytest

from reloader import settings
from reloader.written import Secret

TWO_SERVERS = """\
vault: {address: https://file:8200}
sources:
  db: {kind: vault, path: secret/app}
  site: {kind: files, path: /etc/site}
volume: {path: /srv/live, files: {a: {content: a}}}
target: {match: {name: nginx}, verify: {within: 2s}}
"""
SMALL = "sources: {site: {kind: files, path: /etc/site}}\ntarget: {kind: none}\n"


@pytest.fixture
def load(tmp_path):
    def loaded(environ, *texts):
        paths = [tmp_path / f"{number}.yaml" for number, _ in enumerate(texts)]
        for path, text in zip(paths, texts, strict=True):
            path.write_text(text)
        return settings.load(paths, environ).pipelines

    return loaded


def mistakes(load, environ, *texts):
    with pytest.raises(settings.ConfigurationInvalid) as refused:
        load(environ, *texts)
    return [str(mistake) for mistake in refused.value.mistakes]


def test_a_variable_wins_over_every_file_that_has_its_key(load):
    environ = {"RELOADER_TARGET__VERIFY__WITHIN": "5s", "RELOADER_TIMING__SETTLE": "1s", "RELOADER_VAULT__ADDRESS": "http://env:1"}
    one, other = load(environ, TWO_SERVERS, SMALL)
    assert (one.target.verify.within, one.timing.settle, other.timing.settle) == (5.0, 1.0, 1.0)
    assert one.connections.vault.address == "http://env:1"


def test_a_variable_reaches_the_settings_of_a_kind_and_leaves_the_rest(load):
    (pipeline,) = load({"RELOADER_SOURCES__DB__POLL": "10s", "RELOADER_SOURCES__DB__VERSION": "3"}, TWO_SERVERS)
    settings_of_kind = pipeline.sources["db"].settings
    assert (settings_of_kind.path, settings_of_kind.poll, settings_of_kind.version) == ("secret/app", 10.0, 3)


def test_a_variable_is_for_the_files_that_have_that_source(load):
    one, other = load({"RELOADER_SOURCES__DB__PATH": "secret/other"}, TWO_SERVERS, SMALL)
    assert one.sources["db"].settings.path == "secret/other"
    assert "db" not in other.sources


def test_the_kind_may_be_a_variable_with_its_keys(load):
    environ = {"RELOADER_TARGET__MATCH__NAME": "nginx", "RELOADER_TARGET__KIND": "process"}
    (pipeline,) = load(environ, SMALL)
    assert pipeline.target.settings.match.name == "nginx"


def test_numbers_and_truths_are_read_from_text_and_text_stays_text(load):
    environ = {"RELOADER_VOLUME__KEEP": "5", "RELOADER_VAULT__TLS__VERIFY": "false", "RELOADER_TARGET__MATCH__NAME": "010"}
    (pipeline,) = load(environ, TWO_SERVERS)
    assert (pipeline.volume.keep, pipeline.connections.vault.tls.verify, pipeline.target.settings.match.name) == (5, False, "010")


def test_lists_are_written_as_in_the_file(load):
    (pipeline,) = load({"RELOADER_VOLUME__CHECK__COMMAND": '[nginx, "-t"]'}, TWO_SERVERS)
    assert pipeline.volume.check.command == ("nginx", "-t")


def test_an_address_that_begins_with_a_bracket_is_no_list(load, tmp_path):
    load({"RELOADER_SERVER__LISTEN": "[::1]:1234"}, SMALL)
    assert settings.load([tmp_path / "0.yaml"], {"RELOADER_SERVER__LISTEN": "[::1]:1234"}).server.listen == "[::1]:1234"


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("RELOADER_TIMNG__SETTLE", "unknown variable; did you mean RELOADER_TIMING__SETTLE?"),
        ("RELOADER_TARGET__VERIFY__WITIN", "unknown variable; did you mean RELOADER_TARGET__VERIFY__WITHIN?"),
        ("RELOADER_SOURCES__DC__PATH", "unknown variable; did you mean RELOADER_SOURCES__DB__PATH?"),
        ("RELOADER_FAILURE__WHEN_CLOSE", "unknown variable; did you mean RELOADER_FAILURE__WHEN_CLOSED?"),
        ("RELOADER_QUITE_SOMETHING_ELSE", "unknown variable; no key of the configuration is named so"),
        ("RELOADER_LOG__LEVEL__X", "unknown variable; did you mean RELOADER_LOG__LEVEL?"),
        ("RELOADER_SOURCES__STE__KIND", "unknown variable; did you mean RELOADER_SOURCES__SITE__KIND?"),
    ],
)
def test_a_variable_that_no_file_has_a_key_for_is_a_mistake(load, name, told):
    assert mistakes(load, {name: "CANARY"}, TWO_SERVERS, SMALL) == [f"environment: {name}: {told}"]


def test_a_variable_makes_no_volume(load):
    assert mistakes(load, {"RELOADER_VOLUME__KEEP": "3"}, SMALL)[0].startswith("environment: RELOADER_VOLUME__KEEP: unknown variable")


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("RELOADER_TIMING__SETTLE", "CANARY", "expected a duration such as 200ms, 5s, 1m30s or 10m"),
        ("RELOADER_FAILURE__MODE", "CANARY", "expected one of: open, closed"),
        ("RELOADER_FAILURE__WHEN_CLOSED", "CANARY", "expected a list such as [a, b] or a mapping such as {a: b}"),
        ("RELOADER_FAILURE__WHEN_CLOSED", "[CANARY]", "expected one of: not_ready, withdraw, stop_target, exit, {stop_target: QUIT}"),
        ("RELOADER_VOLUME__CHECK", "{comand: [CANARY]}", "unknown key 'comand'; did you mean 'command'?"),
        ("RELOADER_VAULT__AUTH__TOKEN", "", "expected a text that is not empty"),
        ("RELOADER_VAULT__ADDRESS", "CANARY", "expected an address such as https://vault:8200"),
        ("VAULT_SKIP_VERIFY", "CANARY", "expected true or false"),
        ("CONSUL_HTTP_SSL", "CANARY", "expected true or false"),
        ("CONSUL_HTTP_ADDR", "unix:///run/CANARY", "expected an address such as http://consul:8500"),
    ],
)
def test_a_wrong_value_is_told_by_the_name_of_its_variable_and_never_shown(load, name, value, told):
    assert mistakes(load, {name: value}, TWO_SERVERS) == [f"environment: {name}: {told}"]


@pytest.mark.parametrize(
    "name", ["RELOADER_CONFIG", "RELOADER_SERVICE_HOST", "RELOADER_SERVICE_PORT_HTTP", "RELOADER_PORT_80_TCP", "OTHER"]
)
def test_what_kubernetes_sets_and_the_name_of_the_file_are_no_settings(load, name):
    assert len(load({name: "x"}, SMALL)) == 1


def test_the_variables_of_vault_are_taken_where_the_file_says_nothing(load):
    environ = {
        "VAULT_ADDR": "https://env:8200/",
        "VAULT_TOKEN": "s.env",
        "VAULT_NAMESPACE": "team",
        "VAULT_CACERT": "/ca",
        "VAULT_CLIENT_CERT": "/cert",
        "VAULT_CLIENT_KEY": "/key",
        "VAULT_TLS_SERVER_NAME": "vault.internal",
        "VAULT_SKIP_VERIFY": "1",
    }
    (pipeline,) = load(environ, TWO_SERVERS.replace("https://file:8200", "https://file:8200, namespace: file"))
    vault = pipeline.connections.vault
    assert (vault.address, vault.namespace, vault.auth.token) == ("https://file:8200", "file", Secret("s.env"))
    assert (vault.tls.ca_file, vault.tls.cert_file, vault.tls.key_file, vault.tls.server_name) == ("/ca", "/cert", "/key", "vault.internal")
    assert vault.tls.verify is False
    (pipeline,) = load(environ, TWO_SERVERS.removeprefix("vault: {address: https://file:8200}\n"))
    assert pipeline.connections.vault.address == "https://env:8200/"


def test_a_token_of_the_environment_does_not_join_a_token_file_of_the_file(load):
    text = TWO_SERVERS.replace("https://file:8200", "https://file:8200, auth: {token_file: /run/token}")
    (pipeline,) = load({"VAULT_TOKEN": "s.env"}, text)
    assert (pipeline.connections.vault.auth.token, pipeline.connections.vault.auth.token_file) == (None, "/run/token")


def test_a_token_of_the_environment_does_not_join_a_login_of_the_file(load):
    text = TWO_SERVERS.replace("https://file:8200", "https://file:8200, auth: {method: kubernetes, role: web}")
    (pipeline,) = load({"VAULT_TOKEN": "s.env"}, text)
    assert (pipeline.connections.vault.auth.token, pipeline.connections.vault.auth.role) == (None, "web")


@pytest.mark.parametrize(
    ("environ", "address"),
    [
        ({"CONSUL_HTTP_ADDR": "consul:8500"}, "http://consul:8500"),
        ({"CONSUL_HTTP_ADDR": "consul:8501", "CONSUL_HTTP_SSL": "true"}, "https://consul:8501"),
        ({"CONSUL_HTTP_ADDR": "http://consul:8501", "CONSUL_HTTP_SSL": "true"}, "https://consul:8501"),
        ({"CONSUL_HTTP_ADDR": "https://consul:8501"}, "https://consul:8501"),
        ({"RELOADER_CONSUL__ADDRESS": "over:1", "CONSUL_HTTP_ADDR": "consul:8500"}, "http://over:1"),
    ],
)
def test_the_address_of_consul_needs_no_scheme_and_gets_one(load, environ, address):
    (pipeline,) = load(environ, SMALL)
    assert pipeline.connections.consul.address == address


def test_what_the_file_says_of_consul_wins(load):
    (pipeline,) = load({"CONSUL_HTTP_ADDR": "env:1", "CONSUL_HTTP_SSL": "true"}, SMALL + "consul: {address: 'http://file:8500'}\n")
    assert pipeline.connections.consul.address == "http://file:8500"


def test_the_tokens_of_consul_are_taken_and_the_file_wins_as_with_its_own_tools(load):
    environ = {"CONSUL_HTTP_ADDR": "consul:8500", "CONSUL_HTTP_TOKEN": "t"}
    assert load(environ, SMALL)[0].connections.consul.token == Secret("t")
    consul = load(environ | {"CONSUL_HTTP_TOKEN_FILE": "/run/t"}, SMALL)[0].connections.consul
    assert (consul.token, consul.token_file) == (None, "/run/t")


def test_namespace_and_partition_of_consul_are_the_usual_ones(load):
    environ = {"CONSUL_HTTP_ADDR": "consul:8500", "CONSUL_NAMESPACE": "team", "CONSUL_PARTITION": "east"}
    consul = load(environ, SMALL)[0].connections.consul
    assert (consul.namespace, consul.partition) == ("team", "east")
