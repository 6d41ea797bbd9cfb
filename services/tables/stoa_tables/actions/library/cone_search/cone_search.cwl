cwlVersion: v1.2
class: CommandLineTool
label: Cone search
doc: Ask a simple cone search service of the Virtual Observatory for what lies around a position.

requirements:
  InitialWorkDirRequirement:
    listing:
      - entryname: cone_search.py
        entry: {$include: cone_search.py}
  NetworkAccess: {networkAccess: true}
hints:
  SoftwareRequirement:
    packages:
      pyvo: {specs: ["https://pyvo.readthedocs.io"]}
  # What a service answers today it may not answer tomorrow.
  WorkReuse:
    enableReuse: false

baseCommand: [python3, cone_search.py]
# Where the service cannot be reached, the row is tried again.
temporaryFailCodes: [75]
inputs:
  service:
    type: string
    label: Service
    doc: Base URL of the service.
    inputBinding: {prefix: --service}
  ra:
    type: double
    label: RA
    doc: Right ascension in degrees, ICRS.
    inputBinding: {prefix: --ra=, separate: false}
  dec:
    type: double
    label: Dec
    doc: Declination in degrees, ICRS.
    inputBinding: {prefix: --dec=, separate: false}
  radius:
    type: double
    label: Radius
    doc: Radius in degrees.
    default: 0.016666666666666666
    inputBinding: {prefix: --radius}
outputs:
  # The script writes cwl.output.json.
  matches:
    type: int
    label: Matches
    doc: How many rows the service gave.
  table:
    type: File
    label: Table
    doc: The rows, as VOTable.
