<#
.SYNOPSIS
Makes an app registration for tapwave with exactly the least permissions, through the Azure
CLI: az login first, as somebody who may register applications and give admin consent.

.EXAMPLE
./register-app.ps1 -Certificate tapwave.cer
.EXAMPLE
./register-app.ps1 -Issuer https://token.actions.githubusercontent.com -Subject repo:contoso/onboarding:ref:refs/heads/main
#>
[CmdletBinding()]
param(
    # A PEM or CER file; only its public part is uploaded.
    [Parameter(Mandatory, ParameterSetName = 'Certificate')] [string] $Certificate,
    # The issuer of the federated token.
    [Parameter(Mandatory, ParameterSetName = 'Workload')] [string] $Issuer,
    # The subject of the federated token.
    [Parameter(Mandatory, ParameterSetName = 'Workload')] [string] $Subject,
    # The application's name.
    [string] $Name = 'tapwave',
    # Adds the permission to change the Temporary Access Pass policy.
    [switch] $WithPolicy
)
$ErrorActionPreference = 'Stop'

function Invoke-Az {
    $answer = & az @args
    if ($LASTEXITCODE -ne 0) { throw "az $($args[0..2] -join ' ') failed" }
    $answer
}

$graph = '00000003-0000-0000-c000-000000000000'
$permissions = @(
    'UserAuthMethod-TAP.ReadWrite.All'  # issue and remove passes
    'User.Read.All'                     # look users up
    'GroupMember.Read.All'              # check target groups
    if ($WithPolicy) { 'Policy.ReadWrite.AuthenticationMethod' } else { 'Policy.Read.AuthenticationMethod' }
)

# The ids are asked of the tenant: a cloud may have others.
$known = (Invoke-Az ad sp show --id $graph --query appRoles --output json) | ConvertFrom-Json
$roles = foreach ($permission in $permissions) {
    $role = $known | Where-Object { $_.value -eq $permission -and $_.allowedMemberTypes -contains 'Application' }
    if (-not $role) { throw "this tenant's Microsoft Graph has no permission $permission" }
    $role.id
}

$app = Invoke-Az ad app create --display-name $Name --sign-in-audience AzureADMyOrg --query appId --output tsv
Invoke-Az ad sp create --id $app --output none
foreach ($role in $roles) {
    Invoke-Az ad app permission add --id $app --api $graph --api-permissions "$role=Role" --output none
}

# A file, because quotes inside arguments do not survive every version of PowerShell; and only
# the public part of the certificate: the key stays where it is.
$file = New-TemporaryFile
try {
    if ($PSCmdlet.ParameterSetName -eq 'Certificate') {
        $public = [System.Security.Cryptography.X509Certificates.X509Certificate2]::new((Resolve-Path $Certificate).Path)
        $base64 = [Convert]::ToBase64String($public.RawData, 'InsertLineBreaks')
        Set-Content -Path $file -Value "-----BEGIN CERTIFICATE-----`n$base64`n-----END CERTIFICATE-----"
        Invoke-Az ad app credential reset --id $app --append --cert "@$file" --output none
    }
    else {
        @{ name = 'tapwave'; issuer = $Issuer; subject = $Subject; audiences = @('api://AzureADTokenExchange') } |
            ConvertTo-Json | Set-Content -Path $file
        Invoke-Az ad app federated-credential create --id $app --parameters "@$file" --output none
    }
}
finally {
    Remove-Item $file
}

Invoke-Az ad app permission admin-consent --id $app
$tenant = Invoke-Az account show --query tenantId --output tsv
"AZURE_TENANT_ID=$tenant"
"AZURE_CLIENT_ID=$app"
Write-Information 'next: tapwave check --access (consent may take a minute to be seen)' -InformationAction Continue
