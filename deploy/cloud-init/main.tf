# A machine with a node, as an example for one provider. The others differ in the two resources.
terraform {
  required_providers {
    hcloud = { source = "hetznercloud/hcloud" }
  }
}

variable "domain" { description = "Host name of the node, whose DNS record leads to the address below." }
variable "deb_url" { description = "Address of the .deb of a release." }
variable "deb_sha256" { description = "Its checksum in SHA256SUMS." }
variable "ssh_keys" { type = list(string) }

resource "hcloud_firewall" "offhook" {
  name = "offhook"
  dynamic "rule" {
    for_each = { ssh = ["tcp", "22"], http = ["tcp", "80"], https = ["tcp", "443"], media = ["udp", "40000-40999"] }
    content {
      direction  = "in"
      protocol   = rule.value[0]
      port       = rule.value[1]
      source_ips = ["0.0.0.0/0", "::/0"]
    }
  }
}

resource "hcloud_server" "offhook" {
  name         = "offhook"
  image        = "debian-12"
  server_type  = "cx22"
  ssh_keys     = var.ssh_keys
  firewall_ids = [hcloud_firewall.offhook.id]
  user_data = templatefile("${path.module}/user-data.yaml", {
    domain     = var.domain
    deb_url    = var.deb_url
    deb_sha256 = var.deb_sha256
  })
}

output "address" { value = hcloud_server.offhook.ipv4_address }
