cwlVersion: v1.2
class: CommandLineTool
label: Match on the sky
doc: Find for each row of a catalogue the nearest row of another one on the sky.

requirements:
  InitialWorkDirRequirement:
    listing:
      - entryname: match_sky.py
        entry: {$include: match_sky.py}
hints:
  SoftwareRequirement:
    packages:
      astropy: {specs: ["https://www.astropy.org"]}

baseCommand: [python3, match_sky.py]
inputs:
  left:
    type: File
    label: Left catalogue
    doc: A table that astropy reads, such as FITS, VOTable, ECSV or CSV.
    inputBinding: {prefix: --left}
  right:
    type: File
    label: Right catalogue
    doc: A table that astropy reads.
    inputBinding: {prefix: --right}
  radius:
    type: double
    label: Radius
    doc: How far apart a match may be, in arc seconds.
    default: 1.0
    inputBinding: {prefix: --radius}
  left_ra:
    type: string
    label: Left RA
    doc: Column of the right ascension, in degrees where it has no unit.
    default: ra
    inputBinding: {prefix: --left-ra}
  left_dec:
    type: string
    label: Left Dec
    doc: Column of the declination.
    default: dec
    inputBinding: {prefix: --left-dec}
  right_ra:
    type: string
    label: Right RA
    doc: Column of the right ascension.
    default: ra
    inputBinding: {prefix: --right-ra}
  right_dec:
    type: string
    label: Right Dec
    doc: Column of the declination.
    default: dec
    inputBinding: {prefix: --right-dec}
outputs:
  # The script writes cwl.output.json.
  matches:
    type: int
    label: Matches
    doc: How many rows of the left catalogue have a match.
  table:
    type: File
    label: Matched
    doc: The matched rows of both catalogues side by side, with their separation in arc seconds, as VOTable.
