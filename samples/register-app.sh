#!/usr/bin/env bash
# Makes an app registration for tapwave with exactly the least permissions, through the Azure
# CLI: az login first, as somebody who may register applications and give admin consent.
#
#   ./register-app.sh certificate CERTIFICATE.pem                 for a client certificate
#   ./register-app.sh workload ISSUER SUBJECT                     for workload identity
#
# ISSUER and SUBJECT are those of the federated token, such as
#   https://token.actions.githubusercontent.com  repo:contoso/onboarding:ref:refs/heads/main
# WITH_POLICY=1 adds the permission to change the Temporary Access Pass policy.
# NAME=… names the application [tapwave]. Nothing secret is printed or stored.
set -euo pipefail

name=${NAME:-tapwave}
graph=00000003-0000-0000-c000-000000000000
permissions=(
    UserAuthMethod-TAP.ReadWrite.All  # issue and remove passes
    User.Read.All                     # look users up
    GroupMember.Read.All              # check target groups
)
if [[ ${WITH_POLICY:-} == 1 ]]; then
    permissions+=(Policy.ReadWrite.AuthenticationMethod)
else
    permissions+=(Policy.Read.AuthenticationMethod)
fi

usage() {
    sed -n '2,12s/^# \{0,1\}//p' "$0" >&2
    exit 2
}
case "${1:-}" in
    certificate) [[ $# -eq 2 && -r ${2:-} ]] || usage ;;
    workload) [[ $# -eq 3 ]] || usage ;;
    *) usage ;;
esac

# The ids are asked of the tenant: a cloud may have others.
roles=()
for permission in "${permissions[@]}"; do
    id=$(az ad sp show --id "$graph" --output tsv \
        --query "appRoles[?value=='$permission' && contains(allowedMemberTypes, 'Application')].id | [0]")
    if [[ -z $id || $id == None ]]; then
        echo "error: this tenant's Microsoft Graph has no permission $permission" >&2
        exit 1
    fi
    roles+=("$id")
done

app=$(az ad app create --display-name "$name" --sign-in-audience AzureADMyOrg --query appId --output tsv)
az ad sp create --id "$app" --output none
for role in "${roles[@]}"; do
    az ad app permission add --id "$app" --api "$graph" --api-permissions "$role=Role" --output none
done

case "$1" in
    certificate)
        # Only the public part is uploaded: the key stays in its file.
        public=$(mktemp)
        trap 'rm -f "$public"' EXIT
        sed -n '/-----BEGIN CERTIFICATE-----/,/-----END CERTIFICATE-----/p' "$2" >"$public"
        az ad app credential reset --id "$app" --append --cert "@$public" --output none
        ;;
    workload)
        az ad app federated-credential create --id "$app" --output none --parameters \
            "{\"name\": \"tapwave\", \"issuer\": \"$2\", \"subject\": \"$3\", \"audiences\": [\"api://AzureADTokenExchange\"]}"
        ;;
esac

az ad app permission admin-consent --id "$app"
tenant=$(az account show --query tenantId --output tsv)
echo "AZURE_TENANT_ID=$tenant"
echo "AZURE_CLIENT_ID=$app"
echo "next: tapwave check --access (consent may take a minute to be seen)" >&2
