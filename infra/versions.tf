# Terraform 1.10 and OpenTofu 1.10 are the first with the S3 backend's native lock file (`use_lockfile`).
terraform {
  required_version = ">= 1.10.0"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "~> 6.0"
    }
  }

  # Bucket and region are given at `init` (see README); they are outputs of bootstrap.
  backend "s3" {
    key          = "sidecar/infra.tfstate"
    encrypt      = true
    use_lockfile = true
  }
}

provider "aws" {
  region = var.region

  default_tags {
    tags = var.tags
  }
}
