# A fleet on Nomad (docs/fleet.md): one node per client, in the client's network and with its host name. The configuration
# is offhook.toml of the folder above, with [store] and [limits] of the one in this folder, and without [tls],
# listen.https, [cluster] and the keys that are set here. Each client has the user offhook and, in its own configuration, a host
# volume that outlasts allocations:  host_volume "offhook" { path = "/var/lib/offhook" }
job "offhook" {
  type = "system"

  update {
    max_parallel     = 1
    min_healthy_time = "10s"
  }

  group "node" {
    network {
      mode = "host"
      port "public" { static = 8080 }
      port "admin" { static = 9090 }
      port "peer" { static = 7900 }
    }

    service {
      name = "offhook"
      port = "public"
      check {
        type     = "http"
        port     = "admin"
        path     = "/readyz"
        interval = "1s"
        timeout  = "1s"
      }
    }

    # store.data_dir: recordings, users' files, the journal.
    volume "data" {
      type   = "host"
      source = "offhook"
    }

    # Tries again as long as it takes, for example until the database is up.
    restart {
      attempts = 10
      interval = "5m"
      delay    = "5s"
      mode     = "delay"
    }

    task "offhook" {
      driver = "exec"
      user   = "offhook"
      volume_mount {
        volume      = "data"
        destination = "/var/lib/offhook"
      }
      config {
        command = "/usr/local/bin/offhook"
        args    = ["serve", "--config", "/etc/offhook/offhook.toml"]
      }
      # limits.drain_seconds + 10 s. The client's max_kill_timeout must allow it.
      kill_signal  = "SIGTERM"
      kill_timeout = "3610s"
      env {
        OFFHOOK_CLUSTER__PEER      = "${NOMAD_ADDR_peer}"
        OFFHOOK_LISTEN__PUBLIC     = "${NOMAD_ADDR_public}"
        OFFHOOK_LISTEN__ADMIN      = "${NOMAD_ADDR_admin}"
        OFFHOOK_PUBLIC__MEDIA_IPS  = "${attr.unique.network.ip-address}"
      }
      template {
        destination = "secrets/offhook.env"
        env         = true
        data        = <<-EOT
          {{ with nomadVar "nomad/jobs/offhook" }}
          OFFHOOK_STORE_URL={{ .store_url }}
          OFFHOOK_SECRET_KEY={{ .secret_key }}
          META_APP_SECRET={{ .app_secret }}
          META_VERIFY_TOKEN={{ .verify_token }}
          META_ACCESS_TOKEN={{ .access_token }}
          OFFHOOK_AUTH_TOKEN={{ .auth_token }}
          OFFHOOK_API_KEY={{ .api_key }}
          {{ end }}
        EOT
      }
      resources {
        cpu    = 2000
        memory = 1024
      }
    }
  }
}
