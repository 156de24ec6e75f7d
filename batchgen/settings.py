"""Settings: flags > environment > .env > profile > ./batchgen.toml > user file > defaults."""

from __future__ import annotations

from pathlib import Path
from typing import Literal
from urllib.parse import quote

from platformdirs import user_config_path, user_data_path
from pydantic import BaseModel, Field
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from batchgen.setting_profiles import ordered_sources
from batchgen.setting_sources import checked_environment

PROJECT_FILE = Path("batchgen.toml")
USER_FILE = user_config_path("batchgen") / "config.toml"


class EngineSettings(BaseModel):
    """Settings for the engine of a worker. The engine logs all values when it starts."""

    device: str = Field(default="auto", description="auto, cpu or cuda:N")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        default="auto",
        description="compute type; auto takes float32 on a CPU and the model's own on a GPU",
    )
    quantize: Literal["none", "int8"] = Field(
        default="none",
        description="int8 keeps eight bits of each weight of the linear layers, float32 on a CPU "
        "only: smaller, and faster where few rows are computed, for slightly other answers",
    )
    kv_memory: str = Field(
        default="0.5",
        description="KV pool: bytes (with K, M, G suffix) or a fraction of the free memory",
    )
    block_size: int = Field(default=16, ge=1, le=256, description="tokens in one KV block")
    max_batch_tokens: int = Field(default=2048, ge=1, description="token budget of one engine step")
    max_num_seqs: int = Field(
        default=128, ge=1, description="sequences computed in one step at most"
    )
    prefix_caching: bool = Field(
        default=True, description="keep the blocks of prompts and answers for rows that begin alike"
    )
    preemption: Literal["auto", "swap", "recompute"] = Field(
        default="auto", description="what happens to rows that give up their KV blocks"
    )
    swap_memory: str = Field(
        default="0.25",
        description="host memory for swapped-out rows: bytes or a fraction of what is free",
    )
    kernels: Literal["auto", "reference", "cpu", "triton"] = Field(
        default="auto",
        description="what attends: auto takes the fastest that serves the device; with reference "
        "all is plain torch",
    )
    cuda_graphs: bool = Field(
        default=False, description="replay decode steps on a GPU as captured graphs; experimental"
    )
    threads: int = Field(
        default=0, ge=0, description="CPU threads of the engine; 0: OMP_NUM_THREADS or every core"
    )


class ServerSettings(BaseModel):
    """Settings of the HTTP server."""

    host: str = Field(default="127.0.0.1", description="address on which the HTTP server listens")
    port: int = Field(default=8000, ge=0, le=65535, description="its port; 0: any free one")
    tls_cert: str = Field(
        default="", description="PEM file of its certificate chain; empty means no TLS"
    )
    tls_key: str = Field(default="", description="PEM file of the certificate's private key")
    max_connections: int = Field(
        default=1000, ge=1, description="connections at a time; further ones are answered with 503"
    )


class MetricsSettings(BaseModel):
    """Settings for metrics, which Prometheus reads. A port of 0 serves none."""

    host: str = Field(
        default="127.0.0.1",
        description="address at which processes serve their metrics, without a key",
    )
    server_port: int = Field(
        default=0,
        ge=0,
        le=65535,
        description="port of the HTTP service's metrics, beside its `/metrics`; 0: none",
    )
    coordinator_port: int = Field(
        default=0, ge=0, le=65535, description="port of a coordinator's metrics; 0: none"
    )
    worker_port: int = Field(
        default=0,
        ge=0,
        le=65535,
        description="port of a worker's metrics, the next free one if others of the machine have "
        "it; 0: none",
    )
    public: bool = Field(
        default=False, description="serve `/metrics` of the HTTP service without a key"
    )


class EndpointSettings(BaseModel):
    """Settings for models that lie behind an HTTP endpoint."""

    hosts: str = Field(
        default="",
        description="hosts beside the loopback that endpoints may have, separated by commas",
    )
    timeout: float = Field(
        default=600.0, gt=0, description="seconds after which a request is given up"
    )
    max_answer_bytes: int = Field(
        default=32 << 20, ge=1, le=48 << 20, description="bytes of one answer at most"
    )
    ca_file: str = Field(
        default="",
        description="certificates (PEM) that endpoints are verified with; empty: the system's",
    )


class Settings(BaseSettings):
    """All settings of an operator. Parameters of a job are not among them."""

    model_config = SettingsConfigDict(
        env_prefix="BATCHGEN_", env_nested_delimiter="__", env_file=".env", extra="ignore"
    )

    home: Path = Field(
        default_factory=lambda: user_data_path("batchgen"),
        description="folder of the database (SQLite), inputs, parts, datasets and models",
    )
    url: str = Field(
        default="",
        description="address of a batchgen server, which has the jobs; empty means the home",
    )
    api_key: str = Field(
        default="", repr=False, description="key for that server; see `batchgen keys`"
    )
    profile: str = Field(
        default="", description="name of the table [profile.NAME] whose settings are taken"
    )
    database_url: str = Field(
        default="", description="SQL truth; empty means SQLite in the home folder"
    )
    broker_url: str = Field(
        default="", description="Redis or Valkey; empty means `batchgen up` brings one"
    )
    insecure: bool = Field(
        default=False,
        description="accept a database or broker on another machine without password or TLS, and "
        "serve other machines without TLS",
    )
    lease_ttl: float = Field(
        default=60.0, gt=0, description="seconds a worker owns a shard unrenewed"
    )
    checkpoint_interval: float = Field(
        default=60.0, gt=0, description="seconds between checkpoints"
    )
    stall_timeout: float = Field(default=600.0, gt=0, description="seconds without an engine step")
    drain_grace: float = Field(default=20.0, ge=0, description="seconds of work after SIGTERM")
    heartbeat_interval: float = Field(
        default=10.0, gt=0, description="seconds between worker heartbeats"
    )
    coordinator_interval: float = Field(
        default=0.5, gt=0, description="seconds between coordinator ticks"
    )
    redispatch_after: float = Field(
        default=30.0,
        gt=0,
        description="seconds until a shard that nobody claimed is published again",
    )
    garbage_interval: float = Field(
        default=600.0, gt=0, description="seconds between two searches for unneeded files"
    )
    garbage_age: float = Field(
        default=3600.0, ge=0, description="seconds until such a file is removed"
    )
    webhook_hosts: str = Field(
        default="", description="hosts that may receive webhooks, with commas between; empty: none"
    )
    webhook_networks: str = Field(
        default="",
        description="networks that are not public and may receive webhooks, with commas between",
    )
    shards_in_flight: int = Field(default=4, ge=1, description="shards one worker holds at a time")
    metrics: MetricsSettings = Field(
        default_factory=MetricsSettings, description="what Prometheus reads"
    )
    tracing: bool = Field(
        default=False,
        description="send traces to OTEL_EXPORTER_OTLP_ENDPOINT; needs `batchgen[otel]`",
    )
    engine: EngineSettings = Field(default_factory=EngineSettings, description="the engine")
    server: ServerSettings = Field(default_factory=ServerSettings, description="the HTTP server")
    endpoint: EndpointSettings = Field(
        default_factory=EndpointSettings, description="models behind an HTTP endpoint"
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Return the sources in order; the first that has a value for a field is used.

        Raises InvalidParameter if a source misspells a name or has an empty value.
        """
        return (
            *checked_environment(settings_cls, dotenv_settings),
            *ordered_sources(
                settings_cls,
                init_settings,
                (env_settings, dotenv_settings, file_secret_settings),
                project_file=PROJECT_FILE,
                user_file=USER_FILE,
            ),
        )

    @property
    def effective_database_url(self) -> str:
        """The URL of the database: `database_url`, or by default SQLite in the home folder."""
        return self.database_url or f"sqlite:///{quote(str(self.home / 'batchgen.db'))}"
