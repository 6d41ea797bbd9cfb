cwlVersion: v1.2
class: CommandLineTool
label: Classify
doc: >-
  Guess which file of a product directory is the image, which the primary beam and which the corrected image: by name,
  then by header, then by simple statistics. It is a guess. Correct it in the tables that build on it.

requirements:
  InitialWorkDirRequirement:
    listing:
      - entryname: classify.py
        entry: {$include: classify.py}
hints:
  SoftwareRequirement:
    packages:
      astropy: {specs: ["https://www.astropy.org"]}

baseCommand: [python3, classify.py]
inputs:
  product:
    type: Directory
    label: Product
    doc: A product directory.
    inputBinding: {position: 1}
outputs:
  # The script writes cwl.output.json.
  image:
    type: string?
    label: Image
    doc: Name of the image that is not corrected for the primary beam; its noise is the same everywhere.
  pb:
    type: string?
    label: Primary beam
    doc: Name of the primary beam image, which is 1 at the pointing centre and falls outwards.
  pbcor:
    type: string?
    label: Corrected image
    doc: Name of the image that is corrected for the primary beam; its fluxes are right and its noise rises outwards.
  why:
    type: string
    label: Why
    doc: What each guess rests on.
