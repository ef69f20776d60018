"""Files become plans; where they come from, and what cannot be in one process together."""

from math import inf
from pathlib import Path

import pytest

from reloader import plan, settings
from reloader.written import Secret

PIPELINE = "sources: {site: {kind: files, path: /etc/site}}\ntarget: {match: {name: nginx}}\n"


@pytest.fixture
def write(tmp_path):
    def written(text: str, name: str = "nginx.yaml") -> Path:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return written


def mistakes(paths, environ=None):
    with pytest.raises(settings.ConfigurationInvalid) as refused:
        settings.load(paths, environ or {})
    return [str(mistake) for mistake in refused.value.mistakes]


def test_a_whole_file_becomes_a_plan(write):
    path = write(
        """
        vault: {address: "https://vault:8200", auth: {token: s.secret}}
        sources:
          tls: {kind: vault, path: pki/issue/web, write: {common_name: web.internal, ttl: 60}, max_staleness: never, on_failure: closed}
          site: {kind: files, path: /etc/reloader/site, parse: yaml}
        volume:
          path: /etc/nginx/live
          files:
            tls.crt: {content: "{{ tls | fullchain }}", mode: "0644"}
            conf.d/site.conf: {copy: site}
          check: {command: [nginx, -t, -c, "{staged}/nginx.conf"], builtin: [keypair]}
        target: {match: {name: nginx}, signal: SIGUSR1, verify: {workers: true, within: 1m30s}}
        timing: {settle: 50ms}
        failure: {mode: closed}
        """
    )
    (pipeline,) = settings.load([path], {}).pipelines
    assert pipeline.name == "nginx"
    assert pipeline.connections.vault.auth == plan.VaultAuth(token=Secret("s.secret"))
    assert pipeline.connections.consul is None
    assert pipeline.sources["tls"].max_staleness == inf
    assert pipeline.sources["tls"].settings.write == {"common_name": "web.internal", "ttl": 60}
    assert pipeline.volume.files["tls.crt"].mode == 0o644
    assert pipeline.volume.check.command == ("nginx", "-t", "-c", "{staged}/nginx.conf")
    assert pipeline.target.kind == "process"
    assert pipeline.target.settings.signal == 10
    assert pipeline.target.verify == plan.Verify(workers=True, within=90.0)
    assert pipeline.timing == plan.Timing(settle=0.05)
    assert "s.secret" not in repr(pipeline)


def test_what_is_not_said_has_the_defaults_of_the_plan(write):
    (pipeline,) = settings.load([write(PIPELINE)], {}).pipelines
    assert (pipeline.timing, pipeline.failure, pipeline.volume) == (plan.Timing(), plan.FailurePolicy(), None)


def test_keys_are_read_as_they_are_written(write):
    path = write(PIPELINE + "volume: {path: /srv/live, files: {on: {content: a}, 010: {content: b}}}\n")
    assert list(settings.load([path], {}).pipelines[0].volume.files) == ["on", "010"]


def test_aliases_may_be_used(write):
    path = write("sources: {a: &site {kind: files, path: /etc/site}, b: *site}\ntarget: {kind: none}\n")
    sources = settings.load([path], {}).pipelines[0].sources
    assert sources["a"] == sources["b"]


def test_a_directory_means_its_yaml_files(write, tmp_path):
    for name in ("b.yaml", "a.yaml", ".hidden.yaml", "notes.txt"):
        write(PIPELINE, name)
    assert [pipeline.name for pipeline in settings.load([tmp_path], {}).pipelines] == ["a", "b"]


def test_a_file_that_is_not_there_is_named(tmp_path):
    assert mistakes([tmp_path / "none.yaml"]) == [f"{tmp_path}/none.yaml: no such file"]


def test_a_directory_without_files_is_named(tmp_path):
    assert mistakes([tmp_path]) == [f"{tmp_path}: no *.yaml in this directory"]


def test_a_file_that_cannot_be_read_is_named(write):
    path = write(PIPELINE) / "nginx.yaml"
    assert mistakes([path]) == [f"{path}: cannot be read (Not a directory)"]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"\xff\xfe\x00", "is not UTF-8 text"),
        (b"a: \x07", "not YAML: a character that may not be in it"),
        (b"#" * (1 << 20) + b"\n", "larger than 1 MiB"),
        (b"[" * 5000, "nested too deeply"),
        (b"---\n", "the file is empty"),
        (b"null\n", "the file is empty"),
    ],
)
def test_a_file_that_nothing_can_be_made_of_is_refused_as_a_whole(tmp_path, content, told):
    path = tmp_path / "x.yaml"
    path.write_bytes(content)
    assert mistakes([path]) == [f"{path}: {told}"]


@pytest.mark.parametrize("value", ["2024-13-45", "9" * 5000])
def test_what_only_looks_like_a_date_or_a_number_is_refused(write, value):
    (told,) = mistakes([write(f"name: {value}\n{PIPELINE}")])
    assert told.endswith("name: this cannot be read; put it in quotes")


def test_the_text_of_the_exception_counts_and_lists(write):
    with pytest.raises(settings.ConfigurationInvalid, match=r"^the configuration has 2 mistakes:\n.+\n.+$"):
        settings.load([write(PIPELINE + "nam: a\ntimin: b\n")], {})


def test_a_template_file_is_read_and_its_mistake_told_at_its_key(write, tmp_path):
    template = tmp_path / "app.conf.j2"
    template.write_text("ok\n{{ sit }}\n")
    path = write(PIPELINE + f"volume:\n  path: /srv/live\n  files:\n    app.conf: {{template: {template}}}\n")
    (told,) = mistakes([path])
    assert told == (f"{path}:6:16: volume.files.app.conf.template: {template}, line 2: no source is called 'sit'; did you mean 'site'?")


def test_a_template_beside_its_file_needs_no_directory(write, tmp_path, monkeypatch):
    """Wherever the program is, and also where the file itself is named by a relative path."""
    (tmp_path / "app.conf.j2").write_text("{{ site }}\n")
    path = write(PIPELINE + "volume: {path: /srv/live, files: {app.conf: {template: app.conf.j2}}}\n")
    monkeypatch.chdir("/")
    found = settings.load([path], {})
    assert found.pipelines[0].volume.files["app.conf"].template == f"{tmp_path}/app.conf.j2"
    monkeypatch.chdir(tmp_path)
    assert settings.load([Path(path.name)], {}) == found


def with_volume(path):
    return f"{PIPELINE}volume: {{path: {path}, files: {{a: {{content: a}}}}}}\n"


def test_files_cannot_share_a_name(write):
    first, second = write(f"name: web\n{PIPELINE}", "a.yaml"), write(f"name: web\n{PIPELINE}", "b.yaml")
    assert mistakes([first, second]) == [f"{second}:1:1: name: {first} has a pipeline of this name already"]


@pytest.mark.parametrize("inner", ["", "/sub", "/../live", "/sub/../sub"])
def test_files_cannot_share_or_nest_their_volumes(write, inner):
    first, second = write(with_volume("/srv/live"), "a.yaml"), write(with_volume(f"/srv/live{inner}"), "b.yaml")
    for order in ([first, second], [second, first]):
        assert mistakes(order) == [f"{order[1]}:3:10: volume.path: {order[0]} has a volume in the same directory, or within one another"]


@pytest.mark.parametrize("inner", ["", "/state", "/../live/state"])
def test_the_state_is_never_where_the_target_of_another_file_reads(write, inner):
    """Leases and their token would be before its eyes."""
    first, second = write(with_volume("/srv/live"), "a.yaml"), write(f"{PIPELINE}state: {{path: /srv/live{inner}}}\n", "b.yaml")
    for order in ([first, second], [second, first]):
        assert mistakes(order) == [
            f"{second}:3:9: state.path: expected a directory that no target mounts, and {first} has its volume there"
        ]


def test_a_link_to_the_volume_is_the_volume(write, tmp_path):
    (tmp_path / "live").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "live")
    path = write(f"{with_volume(tmp_path / 'live')}state: {{path: {tmp_path}/link/state}}\nfailure: {{fallback: {tmp_path}/link/a}}\n")
    assert [told.split(": ")[1] for told in mistakes([path])] == ["state.path", "failure.fallback"]


def test_neighbouring_volumes_are_fine(write):
    paths = [write(with_volume("/srv/live"), "a.yaml"), write(with_volume("/srv/live2"), "b.yaml")]
    assert len(settings.load(paths, {}).pipelines) == 2


def test_only_one_file_may_have_a_program_of_ours(write):
    text = "sources: {site: {kind: files, path: /etc/site}}\ntarget: {kind: exec, command: [nginx]}\n"
    first, second = write(text, "a.yaml"), write(text, "b.yaml")
    assert mistakes([first, second]) == [
        f"{second}:2:10: target.kind: {first} has a target of kind exec already, and one process runs one program"
    ]


def test_files_must_agree_on_what_holds_for_the_process(write):
    first, second = write(f"{PIPELINE}log: {{level: debug}}\n", "a.yaml"), write(f"{PIPELINE}log: {{level: error}}\n", "b.yaml")
    assert mistakes([first, second]) == [f"{second}:3:7: log.level: {first} says otherwise, and this holds for the whole process"]


def test_a_file_that_says_nothing_of_the_process_agrees(write):
    paths = [write(PIPELINE, "a.yaml"), write(f"{PIPELINE}log: {{level: debug}}\nserver: {{listen: 'off'}}\n", "b.yaml")]
    made = settings.load(paths, {})
    assert (made.log, made.server) == (plan.Log(level="debug"), plan.Server(listen="off"))


class TestFind:
    def test_files_come_first(self, write, tmp_path):
        path = write(PIPELINE)
        found, files = settings.find([path], [], None, None, {"RELOADER_CONFIG": "/nowhere", "CONFIG_DIR": "/etc/x"}, directory=tmp_path)
        assert (found.pipelines[0].name, files) == ("nginx", (path,))

    def test_a_directory_stands_for_its_files(self, write, tmp_path):
        paths = tuple(write(PIPELINE, name) for name in ("a.yaml", "b.yaml"))
        assert settings.find([tmp_path], [], None, None, {})[1] == paths

    def test_watch_comes_before_the_environment(self, tmp_path):
        found, files = settings.find([], ["/etc/app"], "app", "USR2", {"RELOADER_CONFIG": "/nowhere"}, directory=tmp_path)
        (pipeline,) = found.pipelines
        assert {name: source.settings.path for name, source in pipeline.sources.items()} == {"watch": "/etc/app"}
        assert (pipeline.target.settings.match.name, pipeline.target.settings.signal, files) == ("app", 12, ())
        assert pipeline.volume is None

    def test_several_directories_may_be_watched(self):
        (pipeline,) = settings.zero_file(["/etc/a", "/etc/b"], "app", None, {}).pipelines
        assert [source.settings.path for source in pipeline.sources.values()] == ["/etc/a", "/etc/b"]
        assert pipeline.target.settings.signal == 1

    @pytest.mark.parametrize("name", ["", "nginx.yaml"])
    def test_then_the_variable_which_names_a_file_or_a_directory(self, write, tmp_path, name):
        path = write(PIPELINE)
        _, files = settings.find([], [], None, None, {"RELOADER_CONFIG": str(tmp_path / name)}, directory=tmp_path / "none")
        assert files == (path,)

    def test_then_the_usual_directory(self, write, tmp_path):
        path = write(PIPELINE)
        assert settings.find([], [], None, None, {"CONFIG_DIR": "/etc/x"}, directory=tmp_path)[1] == (path,)

    def test_then_the_variables_of_the_sidecar_that_this_one_replaces(self, tmp_path):
        environ = {"CONFIG_DIR": "/etc/a, /etc/b", "PROCESS_NAME": "app", "RELOAD_SIGNAL": "SIGUSR1"}
        found, files = settings.find([], [], None, None, environ, directory=tmp_path)
        (pipeline,) = found.pipelines
        assert [source.settings.path for source in pipeline.sources.values()] == ["/etc/a", "/etc/b"]
        assert (pipeline.target.settings.match.name, pipeline.target.settings.signal, files) == ("app", 10, ())

    def test_where_it_may_come_from_later_is_watched(self, write, tmp_path):
        """A directory with all that comes into it, also the usual one while it is empty."""
        empty, usual = tmp_path / "empty", tmp_path / "usual"
        empty.mkdir()
        usual.mkdir()
        path = write(PIPELINE, "usual/a.yaml")
        assert settings.places([path], [], {}, directory=usual) == (path,)
        assert settings.places([], ["/etc/app"], {}, directory=usual) == ()
        assert settings.places([], [], {"RELOADER_CONFIG": "/nowhere"}, directory=usual) == (Path("/nowhere"),)
        assert settings.places([], [], {}, directory=usual) == (usual,)
        assert settings.places([], [], {"CONFIG_DIR": "/etc/x"}, directory=empty) == (empty,)
        assert settings.places([], [], {"CONFIG_DIR": "/etc/x"}, directory=tmp_path / "none") == ()

    def test_with_nothing_at_all_it_is_told_what_to_do(self, tmp_path):
        with pytest.raises(settings.ConfigurationInvalid, match=r"no configuration: name a file, put one into .*, or use --watch"):
            settings.find([], [], None, None, {}, directory=tmp_path)

    def test_files_and_watch_exclude_each_other(self, write):
        with pytest.raises(settings.ConfigurationInvalid, match="command line: --watch: expected files, or --watch"):
            settings.find([write(PIPELINE)], ["/etc/a"], "app", None, {})

    @pytest.mark.parametrize(
        ("watch", "process", "signal", "told"),
        [
            ([], "app", None, "--watch: required: the directory to watch"),
            (["/etc/a"], None, None, "--process: required: the name of the process to signal"),
            (["/etc/a"], "app", "HUPP", "--signal: expected a signal such as HUP, SIGHUP or 1"),
            (["etc/a"], "app", None, "--watch: expected an absolute path, such as /etc/app/config"),
            ([""], "app", None, "--watch: expected a text that is not empty"),
        ],
    )
    def test_wrong_options_are_named(self, watch, process, signal, told):
        with pytest.raises(settings.ConfigurationInvalid) as refused:
            settings.find([], watch, process, signal, {})
        assert [str(mistake) for mistake in refused.value.mistakes] == [f"command line: {told}"]

    def test_wrong_variables_are_named(self, tmp_path):
        with pytest.raises(settings.ConfigurationInvalid) as refused:
            settings.find([], [], None, None, {"CONFIG_DIR": "/etc/a", "PROCESS_NAME": "a", "RELOAD_SIGNAL": "x"}, directory=tmp_path)
        (mistake,) = refused.value.mistakes
        assert str(mistake) == "environment: RELOAD_SIGNAL: expected a signal such as HUP, SIGHUP or 1"
