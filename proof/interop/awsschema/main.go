// Command awsschema is a provider for OpenTofu and Terraform that knows the schema of some AWS resources, and nothing else: it validates
// configurations where AWS's own provider can't be had. FLATRATE_TERRAFORM_SCHEMA names the folder that tools/terraform-schema.sh filled.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/hashicorp/terraform-plugin-go/tfprotov6"
	"github.com/hashicorp/terraform-plugin-go/tfprotov6/tf6server"
	"github.com/hashicorp/terraform-plugin-go/tftypes"
)

var resources = map[string]string{
	"aws_cloudwatch_log_group": "cloudwatch-log-group", "aws_cloudwatch_metric_alarm": "cloudwatch-metric-alarm",
	"aws_elasticache_parameter_group": "elasticache-parameter-group", "aws_elasticache_replication_group": "elasticache-replication-group",
	"aws_elasticache_serverless_cache": "elasticache-serverless-cache", "aws_elasticache_subnet_group": "elasticache-subnet-group",
	"aws_elasticache_user": "elasticache-user", "aws_elasticache_user_group": "elasticache-user-group", "aws_kms_alias": "kms-alias",
	"aws_kms_key": "kms-key", "aws_security_group": "security-group", "aws_vpc_security_group_ingress_rule": "vpc-security-group-ingress-rule",
}

var dataSources = map[string]string{
	"aws_caller_identity": "data-aws-caller-identity", "aws_iam_policy_document": "data-aws-iam-policy-document", "aws_partition": "data-aws-partition",
	"aws_region": "data-aws-region",
}

func main() {
	p := &provider{schema: &tfprotov6.GetProviderSchemaResponse{Provider: &tfprotov6.Schema{Block: &tfprotov6.SchemaBlock{}},
		ResourceSchemas: map[string]*tfprotov6.Schema{}, DataSourceSchemas: map[string]*tfprotov6.Schema{}}}
	if err := p.load(os.Getenv("FLATRATE_TERRAFORM_SCHEMA")); err != nil {
		fmt.Fprintln(os.Stderr, "awsschema:", err)
		os.Exit(1)
	}
	if len(os.Args) > 1 && os.Args[1] == "count" { // for people, and to see that the schema was understood
		for name, s := range p.schema.ResourceSchemas {
			fmt.Println(name, len(s.Block.Attributes), len(s.Block.BlockTypes))
		}
		for name, s := range p.schema.DataSourceSchemas {
			fmt.Println("data", name, len(s.Block.Attributes), len(s.Block.BlockTypes))
		}
		return
	}
	if err := tf6server.Serve("registry.opentofu.org/hashicorp/aws", func() tfprotov6.ProviderServer { return p }); err != nil {
		os.Exit(1)
	}
}

type provider struct {
	tfprotov6.ProviderServer // what is not here is not asked for by validate
	schema                   *tfprotov6.GetProviderSchemaResponse
}

func (p *provider) load(dir string) error {
	if dir == "" {
		return errors.New("FLATRATE_TERRAFORM_SCHEMA is not set")
	}
	for to, names := range map[*map[string]*tfprotov6.Schema]map[string]string{&p.schema.ResourceSchemas: resources, &p.schema.DataSourceSchemas: dataSources} {
		for name, folder := range names {
			s, err := read(dir, folder)
			if err != nil {
				return err
			}
			(*to)[name] = s
		}
	}
	optional := func(name string, kind tftypes.Type, writeOnly bool) *tfprotov6.SchemaAttribute {
		return &tfprotov6.SchemaAttribute{Name: name, Type: kind, Optional: true, WriteOnly: writeOnly}
	}
	group, user := p.schema.ResourceSchemas["aws_elasticache_replication_group"], p.schema.ResourceSchemas["aws_elasticache_user"]
	return errors.Join(younger(dir, "replicationGroup.d.ts", "durability", optional("durability", tftypes.String, false), group),
		younger(dir, "user.d.ts", "passwordsWo", optional("passwords_wo", tftypes.String, true), user),
		younger(dir, "user.d.ts", "passwordsWoVersion", optional("passwords_wo_version", tftypes.Number, false), user))
}

func (p *provider) GetMetadata(context.Context, *tfprotov6.GetMetadataRequest) (*tfprotov6.GetMetadataResponse, error) {
	return nil, errors.New("not there")
}

func (p *provider) GetProviderSchema(context.Context, *tfprotov6.GetProviderSchemaRequest) (*tfprotov6.GetProviderSchemaResponse, error) {
	return p.schema, nil
}

func (p *provider) ValidateProviderConfig(_ context.Context, r *tfprotov6.ValidateProviderConfigRequest) (*tfprotov6.ValidateProviderConfigResponse, error) {
	return &tfprotov6.ValidateProviderConfigResponse{PreparedConfig: r.Config}, nil
}

func (p *provider) ValidateResourceConfig(context.Context, *tfprotov6.ValidateResourceConfigRequest) (*tfprotov6.ValidateResourceConfigResponse, error) {
	return &tfprotov6.ValidateResourceConfigResponse{}, nil
}

func (p *provider) ValidateDataResourceConfig(context.Context, *tfprotov6.ValidateDataResourceConfigRequest) (*tfprotov6.ValidateDataResourceConfigResponse, error) {
	return &tfprotov6.ValidateDataResourceConfigResponse{}, nil
}

func (p *provider) StopProvider(context.Context, *tfprotov6.StopProviderRequest) (*tfprotov6.StopProviderResponse, error) {
	return &tfprotov6.StopProviderResponse{}, nil
}
